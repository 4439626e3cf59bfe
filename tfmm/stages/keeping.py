"""Training a model of a run, and keeping what came out of it."""

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from tfmm import train
from tfmm.errors import RunError
from tfmm.progress import say
from tfmm.run import Run, file_hash, read_json, replacing, write_json
from tfmm.settings import Training
from tfmm.train import Places


def places(run: Run, name: str) -> Places:
    """Where the training of a model leaves its files."""
    return Places(run.log_file(name), run.tensorboard(name), run.training(name))


def trained(
    name: str,
    own: Training,
    seed: int,
    mark: str,
    model: keras.Model,
    losses: Mapping[str, keras.losses.Loss],
    epoch_data: Callable[[int], tf.data.Dataset],
    validate: Callable[[], dict[str, float]],
    where: Places,
    steps_per_call: int = 1,
    rate_factors: Mapping[int, float] | None = None,
) -> dict:
    """Trains a model, from its checkpoint if that is of the same model.

    Args:
        name: For messages.
        own: `[towers.NAME]` or `[heads.NAME]`.
        seed: The run's seed.
        mark: Fingerprint of the model.
        model, losses, epoch_data, validate, where, steps_per_call, rate_factors: As in
            `tfmm.train.train`.

    Returns:
        What `tfmm.train.train` returns.
    """
    started_as = where.training / "fingerprint.json"
    if not started_as.exists() or read_json(started_as) != mark:
        train.forget_checkpoint(where)
        write_json(started_as, mark)
    return train.train(
        *(name, model, losses, own, seed, epoch_data, validate, where),
        steps_per_call,
        rate_factors,
    )


def keep(run: Run, name: str, mark: str, model: keras.Model, result: dict) -> None:
    """Saves a model and what is known of it; the training's checkpoint goes."""
    with replacing(run.model_file(name)) as file:
        # Keras insists on the suffix.
        whole = file.with_name(file.name + ".keras")
        try:
            model.save(whole)
            whole.rename(file)
        finally:
            whole.unlink(missing_ok=True)
    info = {
        "fingerprint": mark,
        "weights": train.weights_hash(model),
        "file": file_hash(run.model_file(name)),
        "parameters": model.count_params(),
        **result,
    }
    write_json(run.model_info_file(name), info)
    train.forget_checkpoint(places(run, name))


def made_from(run: Run, name: str) -> str:
    """The fingerprint of a model in the run; empty of one that is not there whole."""
    info = _info(run, name)
    return info[0] if info else ""


def _info(run: Run, name: str) -> tuple[str, str] | None:
    """Fingerprint and file hash, empty of a damaged file; `None` where none is."""
    file = run.model_info_file(name)
    if not file.exists():
        return None
    try:
        info = read_json(file)
        return info["fingerprint"], info["file"]
    except (RunError, KeyError, TypeError):
        return "", ""


def is_fitted(run: Run, name: str, mark: str) -> bool:
    """Whether the run holds this model, whole, and made from the same things."""
    info = _info(run, name)
    if info is None:
        return False
    if info[0] != mark:
        say(f"{name}: made from other settings or another catalog; fitting it again")
        return False
    model = run.model_file(name)
    if not model.exists() or file_hash(model) != info[1]:
        say(f"{name}: {model} is lost or damaged; fitting it again")
        return False
    return True
