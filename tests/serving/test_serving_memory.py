"""A server that has changed versions many times is no larger for it."""

import shutil

import numpy as np
import psutil

from serving.config import ModelConfig
from serving.models import ModelStore

MIB = 2**20
GRAPH_MIB = 24


def write_large(path):
    """A SavedModel with a large constant in its graph."""
    import tensorflow as tf

    values = np.arange(GRAPH_MIB * MIB // 4, dtype=np.float32)
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="place")])
    def at(place):
        return {"value": tf.constant(values)[place]}

    tf.saved_model.save(module, str(path), signatures=at)


def test_versions_that_were_replaced_leave_no_memory(tmp_path):
    write_large(tmp_path / "large")
    base = tmp_path / "served"
    store = ModelStore([ModelConfig("large", base)])
    held = []
    for number in range(1, 8):
        shutil.copytree(tmp_path / "large", base / str(number))
        store.poll()
        assert store.available() == {"large": [number]}
        held.append(psutil.Process().memory_info().rss)
    assert [version.state for version in store.statuses("large")[1:]] == ["END"] * 6
    store.stop()
    # What each of the last four replaced versions could have kept is its graph.
    assert held[6] - held[2] < 2 * GRAPH_MIB * MIB
