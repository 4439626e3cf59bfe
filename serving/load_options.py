"""How versions are loaded and run, the same for all models of a server."""

from dataclasses import dataclass, field
from pathlib import Path

from serving.batching import BatchScheduler
from serving.metrics import Metrics
from serving.parameters import (
    BATCHING_FILE,
    BatchingParameters,
    read_batching_parameters,
)


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded and run.

    Attributes:
        warm_up: bool. Run the warm-up requests of each version.
        intra_op_threads: int. Threads that one op may use; 0 leaves it to
            TensorFlow. The first session of a process decides for all.
        inter_op_threads: int. Ops that run at a time; 0 leaves it to TensorFlow.
        scheduler: `BatchScheduler` or None. Joins requests to batches; None runs
            each by itself.
        batching_per_model: bool. Join only the requests of versions that have a
            file `batching_params.pbtxt`, by its values. Otherwise all requests are
            joined, by the values of `scheduler`.
        metrics: `Metrics` to record in.
    """

    warm_up: bool = True
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    scheduler: BatchScheduler | None = None
    batching_per_model: bool = False
    metrics: Metrics = field(default_factory=Metrics)

    def session_config(self):
        """The `ConfigProto` that sessions are made with."""
        import tensorflow as tf

        config = tf.compat.v1.ConfigProto(
            allow_soft_placement=True,
            intra_op_parallelism_threads=self.intra_op_threads,
            inter_op_parallelism_threads=self.inter_op_threads,
        )
        # Other programs of a laptop need the accelerator too.
        config.gpu_options.allow_growth = True
        return config

    def batching_parameters(self, path: Path) -> BatchingParameters | None:
        """How the requests to one version are joined.

        Args:
            path: Path of the version directory.

        Returns:
            `BatchingParameters`, or None if each request runs by itself.

        Raises:
            ConfigError: If the version's own file cannot be followed.
        """
        if self.scheduler is None:
            return None
        if not self.batching_per_model:
            return self.scheduler.parameters
        file = path / BATCHING_FILE
        return read_batching_parameters(file) if file.exists() else None
