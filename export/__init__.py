"""export: a run -> one verified SavedModel for TensorFlow Serving."""

# Beside the model, where TensorFlow Serving looks for warm-up requests and ignores
# what it does not know.
EXTRA = "assets.extra"
GOLDEN_FILE = "golden_requests.json"
ABOUT_FILE = "tfmm.json"
WARMUP_FILE = "tf_serving_warmup_requests"
SUMS_FILE = "sha256.txt"
# Where TensorFlow Serving looks with --enable_per_model_batching_parameters.
BATCHING_FILE = "batching_params.pbtxt"
SIGNATURES = ("serving_default", "probabilities", "explain", "embed")
# Products that a server joins to one batch at most, and that it is warmed up with.
MAX_BATCH_SIZE = 32
