import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm import train
from tfmm.errors import RunError
from tfmm.losses import WeightedSoftmaxCrossEntropy
from tfmm.schedule import Schedule, rate_factor
from tfmm.settings import Optimization, PolicyNetwork, ResNet50
from tfmm.train import Enough, Places

INPUTS = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
TARGETS = (INPUTS @ np.random.default_rng(1).normal(size=(6, 3))).argmax(axis=1)


def settings(stages=None, **own):
    if stages:
        tower = {"model": "resnet50", "modality": "image", "weights": "imagenet"}
        return ResNet50(**tower, stages=stages, **own)
    return PolicyNetwork(model="policy_network", towers=["a", "b"], **own)


def places(folder, told=lambda figures: None):
    parts = ("log.csv", "tensorboard", "training")
    return Places(*(folder / part for part in parts), told)


def run(folder, killed_after=None, watch=None, told=lambda figures: None, **own):
    """Trains a small network with dropout; returns its result and its weights.

    `watch(model)` is called after each epoch, and `told` with its figures.
    """
    train.deterministic(5)
    inputs = keras.Input((6,), name="x")
    inner = keras.Input((6,))
    hidden = keras.layers.Dense(8, "relu", name="first")(inner)
    hidden = keras.layers.BatchNormalization()(keras.layers.Dropout(0.4)(hidden))
    hidden = keras.Model(inner, hidden, name="backbone")(inputs)
    logits = keras.layers.Dense(3, name="logits")(hidden)
    model = keras.Model({"x": inputs}, {"features": hidden, "logits": logits})

    def epoch_data(epoch):
        if killed_after is not None and epoch > killed_after:
            raise KeyboardInterrupt
        order = np.random.default_rng((5, epoch)).permutation(64)
        pairs = ({"x": INPUTS[order]}, {"logits": TARGETS[order]})
        return tf.data.Dataset.from_tensor_slices(pairs).batch(16)

    def validate():
        if watch:
            watch(model)
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
        {"logits": WeightedSoftmaxCrossEntropy()},
        settings(**options),
        5,
        epoch_data,
        validate,
        places(folder, told),
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


TWO_STAGES = [
    {"trainable_layers": 0, "max_epochs": 2, "optimizer": "sgd", "momentum": 0.9},
    {"trainable_layers": "all", "max_epochs": 3, "learning_rate": 0.01},
]


def test_a_training_of_stages_killed_in_each_ends_as_if_it_had_not_been(tmp_path):
    own = {"stages": TWO_STAGES, "schedule": "cosine", "warmup_epochs": 0.5}
    whole, weights = run(tmp_path / "whole", **own)
    assert whole["epochs"] == 5
    for kills in (1, 2, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", killed_after=kills, **own)
    resumed, again = run(tmp_path / "killed", **own)
    assert resumed["best"] == whole["best"]
    for first, second in zip(weights, again, strict=True):
        np.testing.assert_array_equal(first, second)
    logs = [(tmp_path / x / "log.csv").read_text() for x in ("whole", "killed")]
    assert logs[0] == logs[1]
    log = list(csv.DictReader(logs[0].splitlines()))
    assert [row["stage"] for row in log] == ["0", "1", "1", "2", "2", "2"]


def test_a_stage_trains_only_its_layers_and_batch_normalisation_rests(tmp_path):
    seen = []

    def watch(model):
        backbone = model.get_layer("backbone")
        seen.append([np.asarray(x).copy() for x in (*backbone.weights, *model.weights)])

    run(tmp_path, watch=watch, stages=TWO_STAGES, patience_epochs=0)
    count = 6  # kernel, bias, gamma, beta, moving mean and variance
    for values in seen[1:3]:
        for first, second in zip(seen[0][:count], values[:count], strict=True):
            np.testing.assert_array_equal(first, second)
        assert (seen[0][-1] != values[-1]).any()  # the output trains
    for first, second in zip(seen[2][:count], seen[3][:count], strict=True):
        assert (first != second).any()


def test_a_stage_starts_from_the_best_weights_so_far(tmp_path):
    calls, heads = [], []

    def watch(model):
        heads.append(np.asarray(model.weights[-1]).copy())

    def judged(self, epoch, figure):
        calls.append(epoch)
        return original(self, epoch, 1.0 if epoch == 1 else 0.0)

    original = Schedule.after
    try:
        Schedule.after = judged
        stages = [{"max_epochs": 3}, {"max_epochs": 1, "learning_rate": 1e-12}]
        result, _ = run(tmp_path, watch=watch, stages=stages, patience_epochs=0)
    finally:
        Schedule.after = original
    assert result["best_epoch"] == 1
    np.testing.assert_allclose(heads[4], heads[1], atol=1e-9)
    assert np.abs(heads[3] - heads[1]).max() > 1e-3


def test_clipping_bounds_the_step_of_plain_descent(tmp_path):
    weights = []

    def watch(model):
        weights.append([np.asarray(x).copy() for x in model.trainable_weights])

    own = {"optimizer": "sgd", "learning_rate": 1.0, "max_epochs": 1}
    run(tmp_path, watch=watch, clip_norm=1e-3, **own)
    moved = [b - a for a, b in zip(*weights, strict=True)]
    length = np.sqrt(sum((x**2).sum() for x in moved))
    assert 0 < length <= 4 * 1e-3 * 1.001  # four updates


def test_the_best_epoch_is_kept_and_logged(tmp_path):
    result, _ = run(tmp_path)
    with (tmp_path / "log.csv").open() as file:
        log = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in log] == list(range(len(log)))
    figures = [float(row["top1"]) for row in log]
    assert result["best"]["top1"] == max(figures)
    assert result["best_epoch"] == int(np.argmax(figures))
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_watch_that_has_enough_leaves_the_best_epoch_so_far(tmp_path):
    def told(figures):
        if figures["epoch"] == 4:
            raise Enough

    ended, weights = run(tmp_path / "ended", told=told)
    whole, expected = run(tmp_path / "whole", max_epochs=4)
    assert (ended["epochs"], ended["best"]) == (4, whole["best"])
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    with pytest.raises(RunError, match=r"the loss is (nan|inf).*learning_rate"):
        run(tmp_path, optimizer="sgd", learning_rate=1e18)


def test_epochs_share_their_optimised_graphs(tmp_path, monkeypatch):
    # TensorFlow forgets them whenever its own seed is set.
    seeds, set_seed = [], tf.random.set_seed
    monkeypatch.setattr(
        tf.random, "set_seed", lambda seed: [seeds.append(seed), set_seed(seed)]
    )
    result, _ = run(tmp_path, max_epochs=3)
    assert result["epochs"] == 3
    assert seeds == [5]


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


def test_a_patience_of_0_never_halves_nor_stops():
    assert walk([0.5] + [0.4] * 20, patience=0) == ([], None)


def factors(**own):
    """The rate's factor at each of 2 updates of each epoch."""
    optimization = Optimization(**own)
    steps = range(2 * optimization.max_epochs)
    return [rate_factor(optimization, step, 2, halvings=0) for step in steps]


def test_warm_up_grows_in_equal_steps_and_then_the_schedule_begins():
    own = {"max_epochs": 4, "warmup_epochs": 2}
    assert factors(**own) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    linear = factors(schedule="linear", **own)
    assert linear == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_cosine_is_keras_own():
    ours = factors(schedule="cosine", max_epochs=5)
    theirs = keras.optimizers.schedules.CosineDecay(1.0, 10)
    np.testing.assert_allclose(ours, [float(theirs(x)) for x in range(10)], atol=1e-6)


def test_halvings_count_while_the_rate_still_grows():
    optimization = Optimization(warmup_epochs=1)
    assert rate_factor(optimization, step=0, steps_per_epoch=4, halvings=1) == 0.125
