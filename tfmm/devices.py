"""The devices of this machine that share a batch."""

import tensorflow as tf


def even(
    data: tf.data.Dataset, count: int, batch_size: int, devices: int
) -> tf.data.Dataset:
    """Cuts each batch to a multiple of the devices, so that all have the same share.

    Only an epoch's last batch may lose some, fewer than there are devices.
    """

    def cut(*batch):
        rows = tf.shape(tf.nest.flatten(batch)[0])[0] // devices * devices
        return tf.nest.map_structure(lambda x: x[:rows], batch)

    steps = count // batch_size + (count % batch_size >= devices)
    return data.take(steps).map(cut)


def available() -> list[str]:
    """The GPUs, or if there are none the CPU's logical devices."""
    gpus = tf.config.list_logical_devices("GPU")
    return [x.name for x in gpus or tf.config.list_logical_devices("CPU")]


def strategy(devices: int) -> tf.distribute.Strategy:
    if devices == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(available()[:devices])
