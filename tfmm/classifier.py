"""A run's towers, calibration and head as one graph: raw inputs to category names.

What is predicted, exported and served is this one function.
"""

from collections.abc import Hashable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfmm import image, results
from tfmm.calibration import Calibration
from tfmm.errors import ExperimentError, did_you_mean
from tfmm.experiment import Experiment
from tfmm.explanation import contributions
from tfmm.fusion import Fusion, calibrated
from tfmm.heads.joint import parts as joint_parts
from tfmm.hiding import images_hidden
from tfmm.networks import Joined, Network, Products, ask, on_rows, without_texts
from tfmm.run import Run
from tfmm.selective import Rule
from tfmm.settings import Modality

DEFAULT_TOP_K = 5


class Classifier:
    """Answers for raw products, in the graph.

    A plain Python object, so that an export can hold the models' variables without
    holding Keras objects. Answers depend on a row alone, never on its batch. Every
    non-empty subset of modalities is answered; without any, the label shares of the
    training products are, and nothing is assigned.

    Args:
        run: A run with the model and its towers fitted.
        settings: Its experiment.
        name: The head, or a single tower.
        top_k: Labels in an answer; at most all of them.
        rule: When not to look at images; every image is looked at if absent.

    Attributes:
        modalities: Name -> settings of the inputs, in the experiment's order.
        label_names: The `C` labels.
        top_k: Labels in an answer.
        rule: As above.

    Raises:
        RunError: If something is missing or stale in the run.
        ExperimentError: If there is no such model, or a rule and no image to skip.
    """

    def __init__(
        self,
        run: Run,
        settings: Experiment,
        name: str,
        top_k: int,
        rule: Rule | None = None,
    ):
        name = named(run, settings, name)
        if rule is not None and not images_hidden(settings, name):
            raise ExperimentError(
                f"{run.path}: {name} cannot answer without images, or reads none, so "
                "no rule can skip them"
            )
        self.name, self.rule = name, rule
        self.task = settings.catalog.task
        self.label_names = run.read_labels()
        self.top_k = min(top_k, len(self.label_names))
        self.networks: dict[str, Network] = {}
        self.joints: dict[str, Joined] = {}
        self.calibrations: dict[str, Calibration] = {}
        for source in settings.sources_of(name):
            self._add(run, settings, source)
        self.towers = settings.towers_of(name)
        self.modalities: dict[str, Modality] = {
            modality: settings.modalities[modality]
            for modality in settings.modalities_of(name)
        }
        self.fusion = None
        if not settings.sees_products(name):
            self.fusion = Fusion(run, settings, name)
        self.calibration = results.read_calibration(run, settings, name)
        self.thresholds = np.float32(self.calibration.thresholds)
        self.hierarchy = results.hierarchy(run, settings)
        self.prior = np.float32(results.prior_logits(run, settings))

    def _add(self, run: Run, settings: Experiment, source: str) -> None:
        self.calibrations[source] = results.read_calibration(run, settings, source)
        model = results.load_model(run, source)
        reads = results.reads(settings, source)
        if source in settings.towers:
            needs = settings.towers[source].modality
            self.networks[source] = Network(model, reads, needs)
            return
        towers, rest = joint_parts(settings.heads[source], model)
        names = {tower: f"{source}/{tower}" for tower in towers}
        self.joints[source] = Joined(names, rest)
        for tower, network in towers.items():
            needs = settings.towers[tower].modality
            own = {needs: reads[tower]}
            self.networks[names[tower]] = Network(network, own, needs)

    @property
    def images(self) -> list[str]:
        """The image modalities, in order."""
        return [
            name for name, about in self.modalities.items() if about.kind == "image"
        ]

    @property
    def models(self) -> list[keras.Model]:
        """Every Keras model inside."""
        heads = [] if self.fusion is None else self.fusion.models.values()
        return [
            *(network.model for network in self.networks.values()),
            *(joint.rest for joint in self.joints.values()),
            *heads,
        ]

    def signature(self) -> dict[str, tf.TensorSpec]:
        """What `answer` takes: string `(batch,)` for each modality."""
        return {
            name: tf.TensorSpec([None], tf.string, name) for name in self.modalities
        }

    def answer(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Classifies raw products.

        Args:
            inputs: Modality -> string `(batch,)`: the text, the bytes of an image
                file, or a table's cells in order with tabs between them, of which
                missing ones are empty and those past its columns are not read; `""`
                where all of it is missing.

        Returns:
            `probabilities` float32 `(batch, C)`; `labels` string, `scores` float32
            and `assigned` bool `(batch, top_k)`, the most probable first; with
            images also `image_used` bool and `image_status` string `(batch, images)`,
            one of `tfmm.image.STATUSES`.
        """
        products = Products.of(inputs, self.modalities)
        answers, statuses, hidden = self._asked(products)
        if hidden is None:
            said = self._fused(answers)
        else:
            said = self._looked_again(answers, statuses, hidden)
        probabilities, present = said["probabilities"], said["present"]
        scores, indices = tf.math.top_k(probabilities, self.top_k)
        if self.hierarchy is None:
            over = scores >= tf.gather(self.thresholds, indices)
        else:
            given = self.hierarchy.assigned_in_graph(probabilities, self.thresholds)
            over = tf.gather(given, indices, batch_dims=1)
        if self.task == "single_label":
            over &= tf.range(self.top_k) == 0
        result = {
            "probabilities": probabilities,
            "labels": tf.gather(tf.constant(self.label_names), indices),
            "scores": scores,
            "assigned": over & present[:, None],
        }
        if statuses:
            codes = tf.stack([statuses[name] for name in self.images], axis=1)
            result["image_used"] = tf.equal(codes, image.USED)
            result["image_status"] = tf.gather(tf.constant(image.STATUSES), codes)
        return result

    def explain(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What each modality did for the labels that `answer` gives.

        Args:
            inputs: As in `answer`.

        Returns:
            `contributions` float32 `(batch, modalities, top_k)`, of
            `tfmm.explanation.contributions`: those to a label add up to its score less
            its share of the training products; 0 for what is missing or was skipped.
            Where a tower attends to the image also `attention` float32 `(batch, h,
            w)`, summing to 1, or zeros for an image that was not looked at; with
            several such towers each as `attention_TOWER`.
        """
        products = Products.of(inputs, self.modalities)
        also = without_texts(self.networks)
        answers, _, _ = self._asked(products, also=also)

        def value(known: frozenset[str]) -> tf.Tensor:
            part = {}
            for name, network in self.networks.items():
                lacks = network.modalities - known
                if network.needs in lacks:
                    part[name] = network.absent(products.size)
                else:
                    part[name] = answers[(name, lacks) if lacks else name]
            return self._fused(part)["probabilities"]

        maps = {
            x: answers[x]["attention"]
            for x in self.networks
            if "attention" in answers[x]
        }
        keys = ["attention"] if len(maps) == 1 else [f"attention_{x}" for x in maps]
        parts = contributions(value, list(self.modalities), self.top_k)
        return {"contributions": parts, **dict(zip(keys, maps.values(), strict=True))}

    def embed(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Features for similarity search. No image is skipped, whatever the rule.

        Args:
            inputs: As in `answer`.

        Returns:
            `embedding` float32 `(batch, d)`, of unit length; zeros for a product
            without any modality.
        """
        products = Products.of(inputs, self.modalities)
        answers, _, _ = self._asked(products, whole=True)
        said = self._fused(answers)
        features = said["features"] * tf.cast(said["present"], tf.float32)[:, None]
        return {"embedding": tf.math.l2_normalize(features, axis=1)}

    def _asked(
        self,
        products: Products,
        whole: bool = False,
        also: Mapping[Hashable, Network] | None = None,
    ):
        """All networks' answers, the images' statuses, and, with a rule, the head's
        answer with every image hidden.

        Args:
            products: A batch.
            whole: Whether no image is skipped, whatever the rule.
            also: Networks that see images, to be asked beside the model's own.
        """
        texts = {k: x for k, x in self.networks.items() if not x.sees_images}
        answers, _ = ask(texts, products)
        if not self.images:
            return answers, {}, None
        need, hidden = products.has_any(self.images), None
        if self.rule is not None and not whole:
            absent = {
                name: network.absent(products.size)
                for name, network in self._image_networks.items()
            }
            hidden = self._fused({**answers, **absent})
            need &= ~self._skips(hidden)
        asked = {**self._image_networks, **(also or {})}
        seen, statuses = self._asked_images(asked, products, need)
        return {**answers, **seen}, statuses, hidden

    @property
    def _image_networks(self) -> dict[str, Network]:
        return {k: x for k, x in self.networks.items() if x.sees_images}

    def _asked_images(
        self, networks: Mapping[Hashable, Network], products: Products, need: tf.Tensor
    ):
        """Answers of networks that see images, and statuses; images are decoded and
        networks run only for the products of `need`.
        """
        specs = {
            (name, key): spec
            for name, network in networks.items()
            for key, spec in network.answers.items()
        }
        # What is true or not is carried as a number, which can be scattered.
        specs |= {(x, "present"): tf.TensorSpec([], tf.int32) for x in networks}
        specs |= {("", x): tf.TensorSpec([], tf.int32) for x in self.images}

        def run(rows):
            said, codes = ask(networks, products.some(rows))
            result = {("", name): code for name, code in codes.items()}
            for name, answers in said.items():
                for key, value in answers.items():
                    flag = key == "present"
                    result[name, key] = tf.cast(value, tf.int32) if flag else value
            return result

        found = on_rows(need, run, specs)
        answers: dict[Hashable, dict] = {name: {} for name in networks}
        statuses = {}
        for (name, key), value in found.items():
            if not name:
                passed = tf.where(products.there[key], image.SKIPPED, image.MISSING)
                statuses[key] = tf.where(need, value, passed)
            elif key == "present":
                answers[name][key] = value > 0
            else:
                answers[name][key] = value
        return answers, statuses

    def _skips(self, hidden: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """bool `(batch,)`: whose answer without images is sure enough; see `Rule`."""
        probabilities = hidden["probabilities"]
        if self.task == "single_label":
            sure = tf.reduce_max(probabilities, axis=1)
        else:
            each = tf.maximum(probabilities, 1.0 - probabilities)
            sure = tf.exp(tf.reduce_sum(tf.math.log(each), axis=1))
        thresholds = tf.constant(np.float32(self.rule.thresholds))
        limit = tf.gather(thresholds, tf.argmax(probabilities, axis=1))
        return hidden["present"] & (sure >= limit)

    def _used(self, statuses: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """bool `(batch,)`: of which products some image was looked at."""
        codes = tf.stack(list(statuses.values()), axis=1)
        return tf.reduce_any(tf.equal(codes, image.USED), axis=1)

    def _looked_again(self, answers, statuses, hidden) -> dict[str, tf.Tensor]:
        """The model's answer: with images where one was looked at, else `hidden`."""
        used = self._used(statuses)

        def run(rows):
            some = tf.nest.map_structure(lambda x: tf.gather(x, rows), answers)
            return self._fused(some)

        spec = {"probabilities": tf.TensorSpec([len(self.label_names)], tf.float32)}
        again = on_rows(used, run, spec)["probabilities"]
        return {
            "probabilities": tf.where(used[:, None], again, hidden["probabilities"]),
            "present": hidden["present"] | used,
        }

    def _fused(self, answers: Mapping[str, Mapping[str, tf.Tensor]]) -> dict:
        """Networks' answers -> `probabilities`, `features`, `present` of the model."""
        heard = {}
        for source, calibration in self.calibrations.items():
            if source in self.joints:
                said = self.joints[source](answers)
            else:
                said = dict(answers[source])
            heard[source] = said
            if self.fusion is not None:
                here = tf.cast(said["present"], tf.float32)[:, None]
                said["logits"] = calibrated(calibration, said["logits"]) * here
        present = tf.stack([x["present"] for x in heard.values()], axis=1)
        any_present = tf.reduce_any(present, axis=1)
        said = heard[self.name] if self.fusion is None else self.fusion(heard)
        logits = calibrated(self.calibration, said["logits"])
        logits = tf.where(any_present[:, None], logits, self.prior)
        if self.task == "single_label":
            probabilities = tf.nn.softmax(logits)
        else:
            probabilities = tf.sigmoid(logits)
        if self.hierarchy is not None:
            probabilities = self.hierarchy.consistent_in_graph(probabilities)
        return {
            "probabilities": probabilities,
            "features": said["features"],
            "present": any_present,
        }


def named(run: Run, settings: Experiment, name: str | None) -> str:
    """The head or tower that is meant: what `[export]` names by default.

    Raises:
        ExperimentError: If there is no such model, or none is named and the experiment
            has no `[export]`.
    """
    models = (*settings.heads, *settings.towers)
    if name is None and settings.export is None:
        raise ExperimentError(
            f"{run.path}: the experiment has no [export] head; name one: "
            f"{', '.join(models)}"
        )
    found = name or settings.export.head
    if found not in models:
        raise ExperimentError(
            f"{run.path}: no head or tower {found!r}{did_you_mean(found, models)}"
        )
    return found


def load(run: Run, name: str | None = None, rule: Rule | None = None) -> Classifier:
    """The classifier of a run.

    Args:
        run: A fitted run.
        name: A head or a tower; what `[export]` names by default.
        rule: When not to look at images.

    Raises:
        ExperimentError: If no model is named and the experiment has no `[export]`.
        RunError: If something is missing or stale in the run.
    """
    settings = run.read_experiment()
    top_k = settings.export.top_k if settings.export else DEFAULT_TOP_K
    return Classifier(run, settings, named(run, settings, name), top_k, rule)
