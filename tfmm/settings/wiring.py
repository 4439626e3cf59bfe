"""Which model hears which: checks over the towers and heads of an experiment.

What is wrong raises `ValueError`; `experiment.py` puts the file before its line.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tfmm.errors import did_you_mean
from tfmm.settings.heads import BoostedTrees, EarlyFusion, FittedHead, Gate, Joint
from tfmm.settings.image_towers import InceptionV3, ResNet50
from tfmm.settings.table_tower import TableTower
from tfmm.settings.tbva import Tbva

# Where text-based attention may stand: paper B's a to e, and ResNet-50's stages.
INCEPTION_POINTS = ("pool2", "mixed2", "mixed4", "mixed7", "mixed9")
RESNET_POINTS = ("conv2", "conv3", "conv4")


def check_towers(
    modalities: Mapping[str, Any], towers: Mapping[str, Any], kinds: Mapping[str, str]
) -> None:
    """Every tower reads a modality of its kind, and what it is built on is there.

    Args:
        modalities: `[modalities]`.
        towers: `[towers]`.
        kinds: Model -> the kind of modality that it reads.
    """
    for name, tower in towers.items():
        where = f"[towers.{name}]"
        if tower.modality not in modalities:
            raise ValueError(
                f"{where} modality = {tower.modality!r} is not in [modalities]"
                f"{did_you_mean(tower.modality, modalities)}"
            )
        modality = modalities[tower.modality]
        if modality.kind != kinds[tower.model]:
            raise ValueError(
                f"{where} {tower.model} reads {kinds[tower.model]}. "
                f"Received: modality {tower.modality!r} of kind {modality.kind!r}"
            )
        if isinstance(tower, TableTower):
            try:
                tower.read_from(modality.columns)
            except ValueError as error:
                raise ValueError(f"{where} {error}") from None
        if isinstance(tower, Tbva):
            _check_tbva(where, tower, towers, kinds)


def _check_tbva(
    where: str, tower: Tbva, towers: Mapping[str, Any], kinds: Mapping[str, str]
) -> None:
    for key in ("image_tower", "text_tower"):
        named = getattr(tower, key)
        if named not in towers:
            raise ValueError(
                f"{where} {key}: {named!r} is not in [towers]"
                f"{did_you_mean(named, towers)}"
            )
    image, text = towers[tower.image_tower], towers[tower.text_tower]
    if not isinstance(image, InceptionV3 | ResNet50):
        raise ValueError(
            f"{where} image_tower must be an inception_v3 or a resnet50. "
            f"Received: {tower.image_tower!r}, a {image.model}"
        )
    if image.modality != tower.modality:
        raise ValueError(
            f"{where} reads the modality of its image_tower, {image.modality!r}. "
            f"Received: modality = {tower.modality!r}"
        )
    points = INCEPTION_POINTS if isinstance(image, InceptionV3) else RESNET_POINTS
    if tower.insert_at not in points:
        raise ValueError(
            f"{where} insert_at: {tower.insert_at!r} is no layer of {image.model} that "
            f"can be attended to{did_you_mean(tower.insert_at, points)}"
        )
    if kinds[text.model] != "text":
        raise ValueError(
            f"{where} text_tower must read text. Received: {tower.text_tower!r}, "
            f"a {text.model}"
        )


def check_heads(
    task: str, towers: Mapping[str, Any], heads: Mapping[str, Any], folds: int
) -> None:
    """Heads hear models that are there, in no circle, and are fitted without leaks.

    Args:
        task: `[catalog] task`.
        towers: `[towers]`.
        heads: `[heads]`.
        folds: `[catalog] folds`.
    """
    models = (*towers, *heads)
    for name, head in heads.items():
        where = f"[heads.{name}]"
        if name in towers:
            raise ValueError(f"{where} has the name of a tower; choose another")
        if len(set(head.towers)) != len(head.towers):
            raise ValueError(f"{where} names a tower twice: {head.towers}")
        for heard in head.towers:
            if heard not in models:
                raise ValueError(
                    f"{where} towers: {heard!r} is not in [towers] or [heads]"
                    f"{did_you_mean(heard, models)}"
                )
            if isinstance(head, Joint) and heard not in towers:
                raise ValueError(
                    f"{where} trains towers themselves. Received: the head {heard!r}"
                )
            if isinstance(head, Joint) and isinstance(towers[heard], Tbva):
                raise ValueError(
                    f"{where} trains towers of one modality. Received: {heard!r}, "
                    "a tbva"
                )
        by_label = isinstance(head, BoostedTrees) and head.form == "per_label"
        if by_label and task == "multi_label":
            raise ValueError(
                f"{where} form = 'per_label' is for single_label; expected 'shared'. "
                "Received: task = 'multi_label'"
            )
    in_order(heads)
    for name, head in heads.items():
        if isinstance(head, FittedHead):
            _check_no_leak(name, head, towers, heads, folds)


def in_order(heads: Mapping[str, Any]) -> list[str]:
    """The heads' names, each after the heads that it hears."""
    done: list[str] = []
    left = list(heads)
    while left:
        ready = [
            name
            for name in left
            if all(heard in done or heard not in heads for heard in heads[name].towers)
        ]
        if not ready:
            raise ValueError(f"[heads.{left[0]}] hears itself: {' -> '.join(left)}")
        done += ready
        left = [name for name in left if name not in ready]
    return done


def has_out_of_fold(
    name: str, towers: Mapping[str, Any], heads: Mapping[str, Any], folds: int
) -> bool:
    """Whether a model has outputs of the split `train_oof`.

    A model that starts from another trained one has none, nor has one that reads
    features, which every fold's network draws up in a space of its own.
    """
    if not folds or isinstance(heads.get(name), Joint):
        return False
    if name in towers:
        return not isinstance(towers[name], Tbva)
    if reads_features(heads[name]):
        return False
    return all(has_out_of_fold(x, towers, heads, folds) for x in heads[name].towers)


def reads_features(head: Any) -> bool:
    """Whether a head reads its towers' features, and not only their logits."""
    if isinstance(head, Gate):
        return head.inputs == "features"
    return isinstance(head, EarlyFusion)


def _check_no_leak(
    name: str,
    head: FittedHead,
    towers: Mapping[str, Any],
    heads: Mapping[str, Any],
    folds: int,
) -> None:
    where = f"[heads.{name}]"
    splits = set(head.fit_splits)
    if "train_oof" in splits:
        if not folds:
            raise ValueError(f'{where} fit_on = "train_oof" needs [catalog] folds')
        if reads_features(head):
            raise ValueError(
                f"{where} reads features, which the networks of different folds draw "
                'up in spaces of their own; fit_on cannot be "train_oof"'
            )
        for heard in head.towers:
            if not has_out_of_fold(heard, towers, heads, folds):
                raise ValueError(
                    f'{where} fit_on = "train_oof": {heard!r} has no out-of-fold '
                    "outputs; see docs/experiment.md"
                )
    for heard in head.towers:
        if heard in heads:
            common = _products(splits) & _products(fitted_on(heard, heads))
            if common:
                raise ValueError(
                    f"{where} hears {heard!r}, which is fitted on the same products "
                    f"({', '.join(sorted(common))}); give one of them another fit_on"
                )


def fitted_on(name: str, heads: Mapping[str, Any]) -> set[str]:
    """The splits that a head, or any head under it, is fitted on."""
    if name not in heads:
        return set()
    head = heads[name]
    under = [fitted_on(heard, heads) for heard in head.towers]
    return set(head.fit_splits).union(*under)


def _products(splits: Iterable[str]) -> set[str]:
    """Splits by their products: out-of-fold outputs are those of train."""
    return {"train" if split == "train_oof" else split for split in splits}
