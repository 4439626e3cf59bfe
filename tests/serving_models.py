"""Tiny SavedModels, and what a server needs to answer with them.

Run: python tests/serving_models.py DIR [--seen-as PATH]

writes models and configuration files below DIR, and prints how to start
TensorFlow Serving with them and the tests against it. A server in a container
sees DIR under another path: --seen-as is that path.
"""

import argparse
from pathlib import Path

LABEL = 'version_labels { key: "stable" value: 1 }'


def write_everything(directory: Path, seen_as: Path | None = None) -> None:
    """Writes the models of the tests, and the files that a server reads.

    Args:
        directory: Path to write below; made where it is missing.
        seen_as: Path under which the server sees it, if another.
    """
    seen_as = seen_as or directory.resolve()
    write_half(directory / "half" / "1")
    write_products(directory / "products" / "1")
    write_offset(directory / "swap" / "1", 1.0)
    for number in (2, 3):
        write_offset(directory / "next" / str(number), float(number))
    for file, names in (
        ("models.pbtxt", ("half", "products", "swap")),
        ("batched_models.pbtxt", ("half",)),
    ):
        (directory / file).write_text(model_config(seen_as, names))
    (directory / "monitoring.pbtxt").write_text(
        'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'
    )
    (directory / "batching.pbtxt").write_text(
        "max_batch_size { value: 4 }\n"
        "batch_timeout_micros { value: 300000 }\n"
        "max_enqueued_batches { value: 2 }\n"
        "num_batch_threads { value: 1 }\n"
        "allowed_batch_sizes: 2\n"
        "allowed_batch_sizes: 4\n"
    )


def model_config(seen_as: Path, names: tuple[str, ...]) -> str:
    """A ModelServerConfig in text form for models below `seen_as`."""
    models = "".join(
        f'  config {{ name: "{name}" base_path: "{seen_as / name}" '
        f'model_platform: "tensorflow" {LABEL} }}\n'
        for name in names
    )
    return f"model_config_list {{\n{models}}}\n"


def flags(seen_as: Path) -> list[str]:
    """The flags of the server that most tests talk to, but for its ports."""
    return [
        f"--model_config_file={seen_as / 'models.pbtxt'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--rest_api_timeout_in_ms=2000",
        "--rest_api_enable_cors_support=true",
        "--enable_grpc_healthcheck_service=true",
        f"--monitoring_config_file={seen_as / 'monitoring.pbtxt'}",
        "--grpc_max_threads=128",
    ]


def batching_flags(seen_as: Path) -> list[str]:
    """The flags of the server that the tests of batching talk to."""
    return [
        f"--model_config_file={seen_as / 'batched_models.pbtxt'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--rest_api_timeout_in_ms=1000",
        "--enable_batching=true",
        f"--batching_parameters_file={seen_as / 'batching.pbtxt'}",
        "--grpc_max_threads=128",
    ]


def write_half(path: Path, offset: float = 0.0) -> Path:
    """A SavedModel of many signatures; the default one is `y = x / 2 + offset`."""
    import tensorflow as tf

    floats = tf.TensorSpec([None], tf.float32)
    module = tf.Module()
    module.offset = tf.Variable(offset)
    ten = tf.constant([10.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(x):
        x = tf.ensure_shape(x, [None])
        return {"y": x / 2 + module.offset}

    @tf.function(input_signature=[floats, floats])
    def add(a, b=ten):
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3], tf.float32)])
    def mean(image):
        image = tf.ensure_shape(image, [None, 4, 4, 3])
        return {"mean": tf.reduce_mean(image, axis=[1, 2, 3])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def echo(text):
        text = tf.ensure_shape(text, [None])
        return {"text": text, "raw_bytes": text, "length": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def kinds(number):
        names = ("int8", "uint8", "int16", "int32", "int64", "uint32", "uint64")
        outputs = {name: tf.cast(number, name) for name in names}
        return outputs | {
            "float": tf.cast(number, tf.float32),
            "double": tf.cast(number, tf.float64),
            "bool": number > 0,
            "string": tf.as_string(number),
        }

    @tf.function(input_signature=[floats])
    def bfloat16(x):
        return {"y": tf.cast(x, tf.bfloat16)}

    @tf.function(input_signature=[floats])
    def total(x):
        return {"total": tf.reduce_sum(x)}

    @tf.function(input_signature=[floats])
    def slow(x):
        return {"y": tf.while_loop(lambda y: y[0] < 1e30, lambda y: [y * 1.0], [x])[0]}

    tf.saved_model.save(
        module,
        str(path),
        signatures={
            "serving_default": half,
            "add": add,
            "mean": mean,
            "echo": echo,
            "kinds": kinds,
            "bfloat16": bfloat16,
            "total": total,
            "slow": slow,
        },
    )
    return path


def write_products(path: Path) -> Path:
    """A SavedModel with the signatures of our exports; every product is a shoe."""
    import tensorflow as tf

    module = tf.Module()
    module.scores = tf.Variable([[0.75, 0.25]])
    specs = [
        tf.TensorSpec([None], tf.string, name=name)
        for name in ("title", "description", "image")
    ]

    @tf.function(input_signature=specs)
    def classify(title, description, image):
        title = tf.ensure_shape(title, [None])
        description = tf.ensure_shape(description, [None])
        image = tf.ensure_shape(image, [None])
        batch = tf.shape(title)[0]
        has_image = tf.strings.length(image)[:, None] > 0
        return {
            "labels": tf.tile([["shoe", "hat"]], [batch, 1]),
            "scores": tf.tile(module.scores, [batch, 1]),
            "assigned": tf.tile([[True, False]], [batch, 1]),
            "image_used": has_image,
            "image_status": tf.where(has_image, "used", "missing"),
        }

    @tf.function(input_signature=specs)
    def probabilities(title, description, image):
        del description, image
        return {"probabilities": tf.tile(module.scores, [tf.shape(title)[0], 1])}

    @tf.function(input_signature=specs)
    def explain(title, description, image):
        del description, image
        batch = tf.shape(title)[0]
        shares = tf.tile([[[0.5, 0.125], [0.0, 0.25], [0.25, 0.0]]], [batch, 1, 1])
        return {"contributions": shares, "attention": tf.ones([batch, 1, 2]) / 2}

    @tf.function(input_signature=specs)
    def embed(title, description, image):
        del description, image
        return {"embedding": tf.tile([[0.6, 0.8]], [tf.shape(title)[0], 1])}

    signatures = {"serving_default": classify, "probabilities": probabilities}
    signatures |= {"explain": explain, "embed": embed}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


def write_warm_up(path: Path, records: list[bytes]) -> None:
    """Puts a file of warm-up records into a version directory."""
    import tensorflow as tf

    (path / "assets.extra").mkdir()
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)


def write_offset(path: Path, offset: float) -> Path:
    """A SavedModel of one signature, `y = x / 2 + offset`."""
    import tensorflow as tf

    module = tf.Module()
    module.offset = tf.Variable(offset)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(x):
        return {"y": tf.ensure_shape(x, [None]) / 2 + module.offset}

    tf.saved_model.save(module, str(path), signatures={"serving_default": half})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seen-as", type=Path)
    options = parser.parse_args()
    seen_as = options.seen_as or options.directory.resolve()
    write_everything(options.directory, seen_as)
    for ports, which in (
        ("--port=8500 --rest_api_port=8501", flags(seen_as)),
        ("--port=8510 --rest_api_port=8511", batching_flags(seen_as)),
    ):
        print(f"tensorflow_model_server {ports} {' '.join(which)}\n")
    print(
        "python -m pytest tests/serving --serving-address 127.0.0.1:8500,8501 "
        "--batching-address 127.0.0.1:8510,8511 "
        f"--serving-models {options.directory}"
    )


if __name__ == "__main__":
    main()
