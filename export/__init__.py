"""export: a run -> one verified SavedModel for TensorFlow Serving."""

# Beside the model, where TensorFlow Serving looks for warm-up requests and ignores
# what it does not know.
EXTRA = "assets.extra"
GOLDEN_FILE = "golden_requests.json"
ABOUT_FILE = "tfmm.json"
WARMUP_FILE = "tf_serving_warmup_requests"
