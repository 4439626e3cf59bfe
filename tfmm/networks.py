"""Networks that see products, asked in the graph and only about whom they must."""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import keras
import tensorflow as tf

from tfmm import cells, image
from tfmm.dataset import Inputs
from tfmm.settings import Modality

Answers = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Network:
    """A trained model that sees products, and what it reads of them.

    Attributes:
        model: dict of its inputs -> dict of answers `(batch, ...)`.
        reads: Input -> what is read for it.
        needs: Modality without which it is absent.
        hidden: Modalities of texts, beside the one it needs, that it is given as if
            no product had them.
    """

    model: keras.Model
    reads: Mapping[str, Inputs]
    needs: str
    hidden: frozenset[str] = frozenset()

    @property
    def sees_images(self) -> bool:
        return any(part.image_size for part in self.reads.values())

    @property
    def modalities(self) -> frozenset[str]:
        return frozenset(part.modality for part in self.reads.values())

    @property
    def answers(self) -> dict[str, tf.TensorSpec]:
        """Answer -> its type and its shape without the batch."""
        return {
            key: tf.TensorSpec(value.shape[1:], tf.float32)
            for key, value in self.model.output.items()
        }

    def __call__(self, values: Mapping, present: tf.Tensor) -> Answers:
        """Asks about the products `present`; an image network runs on no others.

        Args:
            values: Modality of texts -> string `(batch,)`; `(modality, side)` of
                images -> float32 `(batch, side, side, 3)`.
            present: bool `(batch,)`.

        Returns:
            The model's answers, zeros where not present, and `present`.
        """
        taken = {}
        for key, part in self.reads.items():
            if part.image_size:
                taken[key] = values[(part.modality, part.image_size)]
            else:
                texts = values[part.modality]
                hide = part.modality in self.hidden
                taken[key] = tf.fill(tf.shape(texts), "") if hide else texts
        if not self.sees_images:
            # Texts cost less than picking them out does.
            mask = tf.cast(present, tf.float32)[:, None]
            said = self.model(taken, training=False)
            return {**{key: x * mask for key, x in said.items()}, "present": present}

        def run(rows):
            some = {key: tf.gather(value, rows) for key, value in taken.items()}
            return self.model(some, training=False)

        return {**on_rows(present, run, self.answers), "present": present}

    def absent(self, batch: tf.Tensor) -> Answers:
        """What it says of `batch` products that it has nothing to see of."""
        said = {
            key: tf.zeros([batch, *spec.shape]) for key, spec in self.answers.items()
        }
        return {**said, "present": tf.zeros([batch], tf.bool)}


@dataclass(frozen=True)
class Joined:
    """A joint network, cut where its towers end.

    Attributes:
        towers: Tower -> the name of the network that runs it.
        rest: What `tfmm.heads.joint.parts` leaves without the towers.
    """

    towers: Mapping[str, str]
    rest: keras.Model

    def __call__(self, answers: Mapping[str, Answers]) -> Answers:
        """`features`, `logits` and `present`, from what its towers' networks say."""
        features = [answers[name]["features"] for name in self.towers.values()]
        here = [answers[name]["present"] for name in self.towers.values()]
        present = tf.reduce_any(tf.stack(here, axis=1), axis=1)
        mask = tf.cast(present, tf.float32)[:, None]
        said = self.rest([*features, *here], training=False)
        return {**{key: x * mask for key, x in said.items()}, "present": present}


def on_rows(
    chosen: tf.Tensor,
    run: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    specs: Mapping[str, tf.TensorSpec],
) -> Answers:
    """What `run` says of some rows of a batch, zeros for the others.

    With no row chosen nothing runs.

    Args:
        chosen: bool `(batch,)`.
        run: From indices `(m,)`, at least one, to numbers `(m, ...)`.
        specs: Answer -> its type and its shape without the batch.

    Returns:
        Answer -> `(batch, ...)`.
    """
    rows = tf.where(chosen)[:, 0]

    def some():
        said = run(rows)
        return [said[key] for key in specs]

    def nothing():
        return [tf.zeros([0, *spec.shape], spec.dtype) for spec in specs.values()]

    found = tf.cond(tf.size(rows) > 0, some, nothing)
    batch = tf.shape(chosen, out_type=tf.int64)
    result = {}
    for (key, spec), said in zip(specs.items(), found, strict=True):
        size = tf.concat([batch, tf.constant(spec.shape.as_list(), tf.int64)], axis=0)
        whole = tf.scatter_nd(rows[:, None], said, size)
        result[key] = tf.ensure_shape(whole, [None, *spec.shape])
    return result


class Products:
    """Raw products of a batch and what is there of them.

    Args:
        inputs: Modality -> string `(batch,)`.
        there: Modality -> bool `(batch,)`: has a text, or bytes of an image.
    """

    def __init__(self, inputs: Answers, there: Answers):
        self.inputs, self.there = inputs, there

    @classmethod
    def of(
        cls, inputs: Mapping[str, tf.Tensor], modalities: Mapping[str, Modality]
    ) -> Self:
        """Reads what clients send; a text that cleaning empties becomes `""`."""
        values, there = {}, {}
        for name, about in modalities.items():
            values[name] = inputs[name]
            if about.kind == "image":
                there[name] = tf.strings.length(inputs[name]) > 0
            else:
                num_cells = len(about.columns) if about.kind == "table" else 0
                there[name] = cells.present(inputs[name], num_cells)
                values[name] = tf.where(there[name], inputs[name], "")
        return cls(values, there)

    def some(self, rows: tf.Tensor) -> Self:
        """The products of some rows, indices `(m,)`."""
        return type(self)(
            {name: tf.gather(x, rows) for name, x in self.inputs.items()},
            {name: tf.gather(x, rows) for name, x in self.there.items()},
        )

    @property
    def size(self) -> tf.Tensor:
        """Products in the batch, int32."""
        return tf.size(next(iter(self.inputs.values())))

    def has_any(self, modalities: Collection[str]) -> tf.Tensor:
        """bool `(batch,)`: which have at least one of the modalities."""
        here = [self.there[name] for name in modalities]
        return tf.reduce_any(tf.stack(here, axis=1), axis=1)


def ask(
    networks: Mapping[Hashable, Network], products: Products
) -> tuple[dict, Answers]:
    """Asks networks about whole products; every image that they read is decoded, once.

    Returns:
        Network -> its answers; image modality that one of them reads -> int32
        `(batch,)` positions in `tfmm.image.STATUSES`.
    """
    values: dict = dict(products.inputs)
    statuses: Answers = {}
    for network in networks.values():
        for part in network.reads.values():
            key = (part.modality, part.image_size)
            if part.image_size and key not in values:
                encoded = products.inputs[part.modality]
                values[key], status = image.decode_batch(encoded, part.image_size)
                # Of several sides each must have come out.
                known = statuses.get(part.modality, status)
                used = tf.equal(known, image.USED)
                statuses[part.modality] = tf.where(used, status, known)
    heard = {}
    for name, network in networks.items():
        present = products.there[network.needs]
        if network.needs in statuses:
            present = tf.equal(statuses[network.needs], image.USED)
        heard[name] = network(values, present)
    return heard, statuses


def without_texts(networks: Mapping[str, Network]) -> dict[Hashable, Network]:
    """Every network that reads texts beside its own modality, without some of them.

    Returns:
        Name of a network and the modalities that are hidden from it -> that network;
        each set of such modalities but none.
    """
    found: dict[Hashable, Network] = {}
    for name, network in networks.items():
        beside = sorted(network.modalities - {network.needs})
        for size in range(1, len(beside) + 1):
            for some in map(frozenset, combinations(beside, size)):
                found[name, some] = replace(network, hidden=some)
    return found
