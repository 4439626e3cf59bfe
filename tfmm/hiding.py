"""Which modalities a model's answers are also stored without."""

from itertools import combinations

from tfmm.experiment import Experiment


def case_names(settings: Experiment, name: str) -> dict[str, frozenset[str]]:
    """What a report calls answers without some modalities -> the hidden ones."""
    modalities = settings.modalities_of(name)
    cases = {f"without_{x}": frozenset([x]) for x in modalities}
    if len(modalities) > 2:
        cases |= {f"only_{x}": frozenset(modalities) - {x} for x in modalities}
    images = images_hidden(settings, name)
    if images and images not in cases.values():
        cases["without_" + "_".join(sorted(images))] = images
    return cases


def images_hidden(settings: Experiment, name: str) -> frozenset[str]:
    """The image modalities of a model that answers without them; else nothing."""
    images = frozenset(
        x
        for x in settings.modalities_of(name)
        if settings.modalities[x].kind == "image"
    )
    if name in settings.towers or images == frozenset(settings.modalities_of(name)):
        return frozenset()
    return images


def hidden_sets(settings: Experiment, name: str) -> list[frozenset[str]]:
    """The sets of modalities that a model's answers without them are stored for.

    A head: each modality, all but each, and all images. What sees several inputs of
    products: every set that leaves something to see, since heads may need any of them.
    """
    modalities = settings.modalities_of(name)
    if len(modalities) < 2:
        return []
    sizes = {1, len(modalities) - 1}
    if settings.sees_products(name):
        sizes = set(range(1, len(modalities)))
    sets = [
        frozenset(some)
        for size in sorted(sizes)
        for some in combinations(modalities, size)
    ]
    images = images_hidden(settings, name)
    sets += [images] if images and images not in sets else []
    if name in settings.towers:
        own = settings.towers[name].modality
        sets = [some for some in sets if own not in some]
    return sets


def case_key(hidden: frozenset[str]) -> str:
    """What stored answers without some modalities are called."""
    return "+".join(sorted(hidden))
