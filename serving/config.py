"""Which models to serve, from where, and which of their versions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLICIES = ("latest", "all", "specific")


class ConfigError(Exception):
    """A flag or a configuration file that cannot be followed; one line of text."""


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: str. The name that clients ask for.
        base_path: Path. The directory that holds the version directories.
        policy: str. "latest" serves the `num_versions` highest versions, "all"
            every version, "specific" those in `versions`.
        num_versions: int. At least 1; read by "latest" only.
        versions: tuple of int. Read by "specific" only.
        labels: dict from label to version number.
    """

    name: str
    base_path: Path
    policy: str = "latest"
    num_versions: int = 1
    versions: tuple[int, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)

    def chosen(self, present: list[int]) -> list[int]:
        """The versions to serve out of those present, highest first.

        Example:
        >>> ModelConfig("m", Path("/models/m")).chosen([1, 3, 2])
        [3]
        """
        descending = sorted(present, reverse=True)
        if self.policy == "latest":
            return descending[: self.num_versions]
        if self.policy == "specific":
            return [number for number in descending if number in self.versions]
        return descending


def read_message(path: Path, kind: Any) -> Any:
    """Reads one protobuf message in text format.

    Args:
        path: Path of the file.
        kind: The message's class.

    Raises:
        ConfigError: If the file cannot be read, or holds no such message.
    """
    from google.protobuf import text_format

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error}.") from error
    try:
        return text_format.Parse(text, kind())
    except text_format.ParseError as error:
        name, problem = kind.DESCRIPTOR.name, " ".join(str(error).split())
        raise ConfigError(f"{path}: is not a {name}: {problem}") from error


def read_model_config_file(path: Path) -> list[ModelConfig]:
    """Reads a ModelServerConfig in protobuf text format.

    What this server cannot do is refused, never passed over.

    Args:
        path: Path of the file.

    Returns:
        List of `ModelConfig`, at least one, in the file's order.

    Raises:
        ConfigError: If the file is missing, is not a ModelServerConfig, names
            no model or a model twice, or asks for what is not supported.
    """
    from tensorflow_serving.config import model_server_config_pb2

    config = read_message(path, model_server_config_pb2.ModelServerConfig)
    if config.WhichOneof("config") != "model_config_list":
        raise ConfigError(
            f"{path}: expected a model_config_list. "
            f"Received: {config.WhichOneof('config') or 'an empty file'}."
        )
    models = model_configs(str(path), config)
    if not models:
        raise ConfigError(f"{path}: model_config_list names no model.")
    return models


def check_labels_at_start(place: str, model: ModelConfig) -> None:
    """Raises `ConfigError`, naming `place`, if the model has labels.

    Nothing is loaded when a server first reads its configuration, so it refuses
    labels then, unless told otherwise.
    """
    if model.labels:
        raise ConfigError(
            f"{place}: model {model.name!r}: version_labels need "
            "--allow_version_labels_for_unavailable_models at start, here as in "
            "tensorflow_model_server."
        )


def model_configs(place: str, config) -> list[ModelConfig]:
    """The models that a `ModelServerConfig` names.

    Args:
        place: str. Where it came from, for the errors.
        config: `ModelServerConfig` with a `model_config_list`.

    Returns:
        List of `ModelConfig`, in order.

    Raises:
        ConfigError: If a model is named twice, or asks for what is not supported.
    """
    models = [_model_config(place, model) for model in config.model_config_list.config]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{place}: Illegal to list model {name} multiple times in config list"
            )
    return models


def check_base_path(place: str, model: ModelConfig) -> None:
    """Raises `ConfigError`, naming `place`, if the base path is no directory."""
    if not model.base_path.is_dir():
        raise ConfigError(
            f"{place}: the base path of model {model.name!r} is not a directory. "
            f"Received: {model.base_path}"
        )


def _model_config(source: str, model) -> ModelConfig:
    place = f"{source}: model {model.name!r}"
    if not model.name:
        raise ConfigError(f"{source}: a model without a name.")
    # 1 is TENSORFLOW in the old enum that model_platform replaced.
    if model.model_platform != "tensorflow" and not (
        not model.model_platform and model.model_type == 1
    ):
        raise ConfigError(
            f'{place}: model_platform must be "tensorflow". '
            f"Received: {model.model_platform!r}"
        )
    if not Path(model.base_path).is_absolute():
        raise ConfigError(
            f"{place}: base_path must be absolute. Received: {model.base_path!r}"
        )
    if model.HasField("logging_config"):
        raise ConfigError(f"{place}: logging_config is not supported here.")
    policy = model.model_version_policy.WhichOneof("policy_choice") or "latest"
    if policy not in POLICIES:
        raise ConfigError(f"{place}: the version policy {policy!r} is not supported.")
    versions = tuple(model.model_version_policy.specific.versions)
    if policy == "specific" and not versions:
        raise ConfigError(f"{place}: the policy 'specific' lists no versions.")
    result = ModelConfig(
        name=model.name,
        base_path=Path(model.base_path),
        policy=policy,
        num_versions=max(1, model.model_version_policy.latest.num_versions),
        versions=versions,
        labels=dict(model.version_labels),
    )
    check_base_path(source, result)
    return result
