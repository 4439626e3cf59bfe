"""From `preset` to a tokenizer and a backbone."""

from collections.abc import Callable
from pathlib import Path

import keras

from tfmm.errors import ExperimentError, did_you_mean
from tfmm.pretrained.bert import bert, distilbert
from tfmm.pretrained.camembert import camembert
from tfmm.pretrained.encoder import Pretrained
from tfmm.pretrained.flaubert import flaubert
from tfmm.pretrained.folder import CONFIG_FILE, Folder
from tfmm.pretrained.roberta import roberta, xlm_roberta

INPUTS = {"token_ids", "padding_mask", "segment_ids"}
# `model_type` of a Hugging Face folder -> what loads it.
FAMILIES: dict[str, Callable[[Folder, bool], Pretrained]] = {
    "bert": bert,
    "camembert": camembert,
    "distilbert": distilbert,
    "flaubert": flaubert,
    "roberta": roberta,
    "xlm-roberta": xlm_roberta,
}


def load(preset: str, load_weights: bool = True) -> Pretrained:
    """Loads a pretrained encoder of texts.

    Args:
        preset: The name of a keras-hub preset (`bert_base_multi`), which is downloaded
            unless it was before, or its address (`kaggle://...`, `hf://...`); or a
            local folder: one that keras-hub saved, or one of Hugging Face with a
            `model_type` that is in `FAMILIES`.
        load_weights: Whether the weights are read; random ones otherwise.

    Returns:
        The tokenizer and the network.

    Raises:
        ExperimentError: If there is no such preset, it cannot be downloaded, something
            in the folder is missing or damaged, or it is no encoder of texts.
    """
    if not Path(preset).is_dir():
        return _keras_hub(preset, load_weights)
    with Folder(Path(preset)) as folder:
        if "class_name" in folder.config:
            return _keras_hub(preset, load_weights)
        if folder.model_type not in FAMILIES:
            raise ExperimentError(
                f"{folder.path / CONFIG_FILE}: model_type = {folder.model_type!r} is "
                f"not supported{did_you_mean(folder.model_type, FAMILIES)}"
            )
        return FAMILIES[folder.model_type](folder, load_weights)


def _keras_hub(preset: str, load_weights: bool) -> Pretrained:
    import keras_hub  # slow; see the package

    local = Path(preset).is_dir()
    names = keras_hub.models.Backbone.presets
    if not local and "://" not in preset and preset not in names:
        near = did_you_mean(preset, keras_hub.models.TextClassifier.presets)
        raise ExperimentError(
            f"preset = {preset!r} is no folder here and no preset of keras-hub"
            + (near if near.startswith("; did") else "")
        )
    try:
        tokenizer = keras_hub.models.Tokenizer.from_preset(preset)
        network = keras_hub.models.Backbone.from_preset(
            preset, load_weights=load_weights, name="backbone"
        )
    except Exception as error:  # whatever the hub's client and the file formats raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExperimentError(
            f"{preset}: no whole keras-hub preset of a text encoder: {reason}"
            if local
            else f"preset = {preset!r} could not be downloaded ({reason}); give the "
            "path of a local folder"
        ) from None
    max_tokens = getattr(network, "max_sequence_length", None)
    inputs = network.input
    outputs = network.output
    if isinstance(outputs, dict):
        # BERT's second output, a layer over the first token, would never be trained.
        outputs = outputs.get("sequence_output")
        if outputs is not None:
            network = keras.Model(inputs, outputs, name="backbone")
    if not isinstance(inputs, dict) or not set(inputs) <= INPUTS or outputs is None:
        raise ExperimentError(
            f"{preset}: expected a network that reads {', '.join(sorted(INPUTS))} and "
            f"gives a state for each token. Received: {type(network).__name__}"
        )
    return Pretrained(
        tokenizer,
        network,
        start=_special(tokenizer, "start_token_id", "cls_token_id"),
        end=_special(tokenizer, "end_token_id", "sep_token_id"),
        padding=getattr(tokenizer, "pad_token_id", 0),
        max_tokens=max_tokens,
    )


def _special(tokenizer: keras.layers.Layer, *names: str) -> tuple[int, ...]:
    for name in names:
        if (number := getattr(tokenizer, name, None)) is not None:
            return (number,)
    return ()
