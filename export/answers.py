"""What a bundle must answer, wherever it is served."""

import base64
import itertools
from collections.abc import Callable, Mapping

import numpy as np

from export import MAX_BATCH_SIZE, SIGNATURES
from export.failure import Failure
from export.hostile import hostile_images
from export.served import Refused

BOUND = 1e-5  # between what is served and what is stored
ROW_BOUND = 1e-6  # between a product's answer in a batch and its answer alone
BATCHES = (1, 2, 7, MAX_BATCH_SIZE)

Call = Callable[[str, dict], dict[str, np.ndarray]]


def check_golden(served: Call, labels: list[str], golden: dict) -> float:
    """Golden requests get their stored answers, alone and in batches.

    Returns:
        The greatest difference of any probability or score.
    """
    products = golden["products"]
    worst = 0.0
    alone = [_all(served, batch([product])) for product in products]
    for size in BATCHES:
        # Every product comes up, in batches that are not alike.
        for start in range(0, max(len(products), size), size):
            places = [(start + i) % len(products) for i in range(size)]
            chosen = [products[place] for place in places]
            answers = _all(served, batch(chosen))
            _check_finite(answers, f"at batch {size}")
            worst = max(worst, _check_stored(answers, chosen, golden, size))
            _check_labels(labels, answers["serving_default"], chosen)
            _check_explained(labels, answers, golden)
            _check_status(answers["serving_default"], chosen)
            for row, place in enumerate(places):
                _check_row(answers, alone[place], row, f"at batch {size}")
    return worst


def check_missing(served: Call, golden: dict) -> int:
    """Every proper subset of the modalities is answered; the empty one by the shares.

    Returns:
        How many cases were tried.
    """
    whole = max(golden["products"], key=lambda x: sum(map(bool, x["inputs"].values())))
    inputs = batch([whole])
    nothing = {name: np.array([b""], object) for name in inputs}
    cases = [
        {name: (inputs if name in kept else nothing)[name] for name in inputs}
        for size in range(len(inputs))
        for kept in itertools.combinations(inputs, size)
    ]
    for case in cases:
        left = sorted(name for name, value in case.items() if value[0])
        answers = _all(served, case)
        said = answers["probabilities"]["probabilities"]
        _check_finite(answers, f"with only {left}")
        parts = answers["explain"]["contributions"][0]
        for name, part in zip(case, parts, strict=True):
            if name not in left and part.any():
                raise Failure(f"with only {left} it explains the answer by {name}")
        if left:
            continue
        if answers["serving_default"]["assigned"].any():
            raise Failure("assigns labels to a product without any modality")
        if np.abs(said - golden["nothing"]).max() > BOUND:
            raise Failure("does not give the label shares without any modality")
        if answers["embed"]["embedding"].any():
            raise Failure("embeds a product without any modality")
    return len(cases)


def check_hostile(served: Call, golden: dict, images: list[str]) -> int:
    """A bad image is told, counts as missing, and touches no other product.

    Returns:
        How many kinds of bad image were tried.
    """
    if not images:
        return 0
    products = golden["products"]
    pictured = [x for x in products if any(x["inputs"][name] for name in images)]
    if not pictured:
        raise Failure("no golden request has an image")
    good = pictured[0]
    name = next(x for x in images if good["inputs"][x])
    # Without words, so that no rule skips its image.
    nothing = dict.fromkeys(good["inputs"], b"")
    beside = {**nothing, name: base64.b64decode(good["inputs"][name])}
    alone = _all(served, _stacked([beside]))
    bad = hostile_images(base64.b64decode(good["inputs"][name]))
    for kind, content in bad.items():
        rows = [beside, {**nothing, name: content}, beside]
        answers = _all(served, _stacked(rows))
        for row in (0, 2):
            _check_row(answers, alone, row, f"beside {kind}")
        top = answers["serving_default"]
        status = top["image_status"][1, images.index(name)].decode()
        if status in ("used", "skipped", "missing"):
            raise Failure(f"says that {kind} was {status}")
        said = answers["probabilities"]["probabilities"][1]
        if np.abs(said - golden["nothing"]).max() > BOUND or top["assigned"][1].any():
            raise Failure(f"answers by {kind}")
    whole = [{**nothing, name: content} for content in bad.values()]
    _all(served, _stacked([*whole, beside]))
    return len(bad)


def check_refusals(
    served: Call, inputs_of: Mapping[str, list[str]], golden: dict
) -> int:
    """Wrong ranks, types, unequal and empty batches are refused, not answered.

    Returns:
        How many kinds of wrong request were tried.
    """
    inputs = batch(golden["products"][:1])
    kinds = 0
    wrongs = {
        "rank 0": lambda x: np.array(x[0], object),
        "rank 2": lambda x: x[:, None],
        "rank 3": lambda x: x[:, None, None],
        "numbers": lambda x: np.zeros([1], np.float32),
    }
    if len(inputs) > 1:
        wrongs["another batch size"] = lambda x: np.concatenate([x, x])
    for signature in inputs_of:
        cases = [
            (f"{name} of {what}", {**inputs, name: make(inputs[name])})
            for name in inputs
            for what, make in wrongs.items()
        ]
        cases.append(("an empty batch", {k: v[:0] for k, v in inputs.items()}))
        for what, case in cases:
            kinds += 1
            try:
                served(signature, case)
            except Refused:
                continue
            raise Failure(f"{signature} answers {what} instead of refusing it")
    served(SIGNATURES[0], inputs)  # still alive
    return kinds


def _all(served: Call, inputs: dict) -> dict[str, dict[str, np.ndarray]]:
    return {signature: served(signature, inputs) for signature in SIGNATURES}


def _check_finite(answers: dict, where: str) -> None:
    for signature, outputs in answers.items():
        for name, value in outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise Failure(f"{signature}: {name} is not finite {where}")


def _check_stored(answers: dict, chosen: list[dict], golden: dict, size: int) -> float:
    expected = np.array([x["probabilities"] for x in chosen])
    answer = answers["probabilities"]["probabilities"]
    if answer.shape != expected.shape:
        raise Failure(f"probabilities have shape {answer.shape}, not {expected.shape}")
    top = answers["serving_default"]
    order = np.argsort(-expected, axis=1, kind="stable")[:, : golden["top_k"]]
    ranked = np.take_along_axis(expected, order, axis=1)
    worst = float(np.abs(answer - expected).max())
    worst = max(worst, float(np.abs(top["scores"] - ranked).max()))
    finite = np.isfinite(answer).all() and np.isfinite(expected).all()
    if worst > BOUND or not finite:
        raise Failure(
            f"answers differ from the stored ones by {worst:.2g} (bound {BOUND:g}) "
            f"at batch {size}"
        )
    return worst


def _check_labels(labels: list[str], top: dict, chosen: list[dict]) -> None:
    """Each label stands beside its own score (equal scores may change places)."""
    index = {name: i for i, name in enumerate(labels)}
    for row, names in enumerate(top["labels"]):
        for rank, name in enumerate(names):
            known = index.get(name.decode())
            if known is None:
                raise Failure(f"answers a label that labels.txt lacks: {name!r}")
            stored = chosen[row]["probabilities"][known]
            if abs(stored - top["scores"][row, rank]) > BOUND:
                raise Failure(f"gives {name.decode()!r} another label's score")


def _check_explained(labels: list[str], answers: dict, golden: dict) -> None:
    """Contributions add up; embeddings have unit length."""
    top = answers["serving_default"]
    shares = [
        [golden["nothing"][labels.index(name.decode())] for name in names]
        for names in top["labels"]
    ]
    added = answers["explain"]["contributions"].sum(axis=1)
    if np.abs(added - (top["scores"] - shares)).max() > BOUND:
        raise Failure("contributions do not add up to the score less the share")
    lengths = np.linalg.norm(answers["embed"]["embedding"], axis=1)
    # What a model has nothing to see of has no direction.
    if ((np.abs(lengths - 1.0) > BOUND) & (lengths > 0.0)).any():
        raise Failure("an embedding is not of unit length")


def _check_status(top: dict, chosen: list[dict]) -> None:
    """Images are skipped for those products that the rule skips them for."""
    if "image_status" not in top:
        return
    for row, product in enumerate(chosen):
        if (top["image_status"][row] == b"skipped").any() != product["skipped"]:
            raise Failure(f"skips, or does not skip, the image of {product['id']}")


def _check_row(answers: dict, alone: dict, row: int, where: str) -> None:
    """A product's answer does not depend on its batch."""
    for signature, outputs in alone.items():
        for name, value in outputs.items():
            here = answers[signature][name][row]
            if value.dtype.kind == "f":
                same = np.abs(here - value[0]).max(initial=0.0) <= ROW_BOUND
            elif name == "labels":
                # Equal scores may change places; their labels are checked elsewhere.
                same = here.shape == value[0].shape
            else:
                same = (here == value[0]).all()
            if not same:
                raise Failure(f"{signature}: {name} of a product changes {where}")


def _decoded(product: dict) -> dict[str, bytes]:
    return {name: base64.b64decode(x) for name, x in product["inputs"].items()}


def _stacked(rows: list[dict[str, bytes]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows], object) for name in rows[0]}


def batch(products: list[dict]) -> dict[str, np.ndarray]:
    """The inputs of golden products as one batch."""
    return _stacked([_decoded(product) for product in products])
