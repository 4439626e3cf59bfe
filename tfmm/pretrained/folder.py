"""A Hugging Face folder: its settings, files and tensors, checked when they are asked
for."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tfmm.errors import ExperimentError, did_you_mean

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PYTORCH_FILE = "pytorch_model.bin"
# keras-hub's activations by their name in a config.json, computed alike.
ACTIVATIONS = ("gelu", "relu", "silu", "tanh")


class Folder:
    """Reads one folder; closes its files when left, as a context manager.

    Args:
        path: The folder.

    Raises:
        ExperimentError: If there is no `config.json` in it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = self.json(CONFIG_FILE)
        self._files = ExitStack()
        self._tensors: dict[str, Any] | None = None

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *error) -> None:
        self._files.close()

    @property
    def model_type(self) -> str:
        """Which kind of model it is."""
        return self.setting("model_type")

    def setting(self, *names: str) -> Any:
        """A value of `config.json` under the first of `names` that it has."""
        for name in names:
            if name in self.config:
                return self.config[name]
        raise ExperimentError(
            f"{self.path / CONFIG_FILE}: expected a key {names[0]!r}"
            f"{did_you_mean(names[0], self.config)}"
        )

    def activation(self, name: str) -> str:
        """The activation that `config.json` has under `name`, as Keras calls it."""
        value = self.setting(name)
        if value not in ACTIVATIONS:
            raise ExperimentError(
                f"{self.path / CONFIG_FILE}: {name} = {value!r} is not supported"
                f"{did_you_mean(str(value), ACTIVATIONS)}"
            )
        return value

    def file(self, name: str) -> Path:
        """The path of a file that must be there."""
        path = self.path / name
        if not path.is_file():
            raise ExperimentError(
                f"{self.path}: expected a file {name} in this folder; there is none"
            )
        return path

    def lines(self, name: str) -> list[str]:
        """The lines of a text file that must be there; only `\\n` ends one."""
        path = self.file(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExperimentError(f"{path}: expected text in UTF-8: {error}") from None
        return text.removesuffix("\n").split("\n")

    def json(self, name: str, needed: bool = True) -> dict[str, Any]:
        """What a JSON file holds; nothing if it is not there and not needed."""
        if not needed and not (self.path / name).exists():
            return {}
        path = self.file(name)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ExperimentError(f"{path}: expected JSON: {error}") from None
        if not isinstance(value, dict):
            raise ExperimentError(f"{path}: expected a JSON object")
        return value

    def tensor(self, *names: str) -> np.ndarray:
        """The tensor under the first of `names` that the folder has, as float32."""
        tensors = self._all_tensors()
        for name in names:
            if name in tensors:
                tensor = tensors[name].get_tensor(name)
                return np.asarray(tensor, np.float32)
        raise ExperimentError(
            f"{self.path}: its weights hold no tensor {names[0]!r}"
            f"{did_you_mean(names[0], tensors)}"
        )

    def has_tensor(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._all_tensors()

    def _all_tensors(self) -> dict[str, Any]:
        """Every tensor's name, with the open file that holds it."""
        if self._tensors is None:
            if (self.path / INDEX_FILE).exists():
                shards = self.json(INDEX_FILE).get("weight_map", {})
                names = sorted(set(shards.values()))
            else:
                names = [WEIGHTS_FILE]
            self._tensors = {}
            for name in names:
                shard = self._open(name)
                self._tensors.update(dict.fromkeys(shard.keys(), shard))
        return self._tensors

    def _open(self, name: str):
        # In a function, as only those who load weights need it.
        import safetensors

        if not (self.path / name).exists() and (self.path / PYTORCH_FILE).exists():
            raise ExperimentError(
                f"{self.path}: expected {name}; {PYTORCH_FILE} needs PyTorch: load it "
                "there and call save_pretrained(folder)"
            )
        path = self.file(name)
        try:
            return self._files.enter_context(safetensors.safe_open(path, "np"))
        except (safetensors.SafetensorError, OSError) as error:
            raise ExperimentError(
                f"{path}: cut off, or no file of safetensors: {error}"
            ) from None
