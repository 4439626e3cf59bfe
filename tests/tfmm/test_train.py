import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm import train
from tfmm.errors import RunError
from tfmm.losses import loss_for
from tfmm.settings import PolicyNetwork
from tfmm.train import Places, Schedule

INPUTS = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
TARGETS = (INPUTS @ np.random.default_rng(1).normal(size=(6, 3))).argmax(axis=1)


def settings(**own):
    return PolicyNetwork(model="policy_network", towers=["a", "b"], **own)


def places(folder):
    return Places(folder / "log.csv", folder / "tensorboard", folder / "training")


def run(folder, killed_after=None, **own):
    """Trains a small network with dropout; returns its result and its weights."""
    train.deterministic(5)
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, "relu")(inputs)
    hidden = keras.layers.BatchNormalization()(keras.layers.Dropout(0.4)(hidden))
    logits = keras.layers.Dense(3, name="logits")(hidden)
    model = keras.Model({"x": inputs}, {"features": hidden, "logits": logits})

    def epoch_data(epoch):
        if killed_after is not None and epoch > killed_after:
            raise KeyboardInterrupt
        order = np.random.default_rng((5, epoch)).permutation(64)
        pairs = ({"x": INPUTS[order]}, {"logits": TARGETS[order]})
        return tf.data.Dataset.from_tensor_slices(pairs).batch(16)

    def validate():
        said = np.asarray(model({"x": INPUTS}, training=False)["logits"])
        right = float((said.argmax(axis=1) == TARGETS).mean())
        return {"top1": right, "loss": float(-said.mean())}

    options = {
        "monitor": "top1",
        "learning_rate": 0.02,
        "max_epochs": 8,
        "patience_epochs": 2,
        **own,
    }
    result = train.train(
        "net",
        model,
        loss_for("single_label"),
        settings(**options),
        5,
        epoch_data,
        validate,
        places(folder),
    )
    return result, model.get_weights()


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd", "adamw"])
def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path, optimizer):
    own = {"optimizer": optimizer, "weight_decay": 0.01 * (optimizer == "adamw")}
    whole, weights = run(tmp_path / "whole", **own)
    for kills in (1, 2, 5):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", killed_after=kills, **own)
    resumed, again = run(tmp_path / "killed", **own)
    assert resumed["best"] == whole["best"]
    assert resumed["epochs"] == whole["epochs"]
    for first, second in zip(weights, again, strict=True):
        np.testing.assert_array_equal(first, second)
    logs = [(tmp_path / x / "log.csv").read_text() for x in ("whole", "killed")]
    assert logs[0] == logs[1]


def test_the_best_epoch_is_kept_and_logged(tmp_path):
    result, _ = run(tmp_path)
    with (tmp_path / "log.csv").open() as file:
        log = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in log] == list(range(len(log)))
    figures = [float(row["top1"]) for row in log]
    assert result["best"]["top1"] == max(figures)
    assert result["best_epoch"] == int(np.argmax(figures))
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    with pytest.raises(RunError, match=r"the loss is (nan|inf).*learning_rate"):
        run(tmp_path, optimizer="sgd", learning_rate=1e30)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    (tmp_path / "training").mkdir()
    np.savez(tmp_path / "training" / "checkpoint.npz", state=np.zeros(1, np.uint8))
    with pytest.raises(RunError, match="not a checkpoint of this model"):
        run(tmp_path)
    (tmp_path / "training" / "checkpoint.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(RunError, match="not a checkpoint of this model"):
        run(tmp_path)


def walk(figures, patience=3, max_halvings=3):
    """Epochs at which the schedule halves, and the one at which it stops."""
    schedule = Schedule(patience, max_halvings)
    halved = []
    for epoch, figure in enumerate(figures):
        if schedule.after(epoch, figure):
            halved.append(epoch)
        if schedule.stopped:
            return halved, epoch
    return halved, None


def test_the_rate_halves_after_three_stale_epochs_three_times_then_stops():
    assert walk([0.5] + [0.4] * 20) == ([3, 6, 9], 12)


def test_an_improvement_sets_the_count_back():
    assert walk([0.5, 0.4, 0.4, 0.6, 0.5, 0.5, 0.5]) == ([6], None)


def test_less_than_the_least_improvement_is_none():
    assert walk([0.5, 0.500005, 0.500009, 0.50001]) == ([3], None)


def test_without_halvings_it_stops_at_once():
    assert walk([0.5, 0.4, 0.4], patience=2, max_halvings=0) == ([], 2)
