"""Pictures that were sent, in memory only, so that typing does not send them again."""

import hashlib
from collections import OrderedDict


class PictureStore:
    """The last pictures that were sent, by the SHA-256 of their bytes.

    A question names its picture instead of holding it. A picture that was pushed out
    by newer ones is unknown, and the page sends it again.

    Args:
        max_bytes: int. Of all pictures together; the longest unused go first.

    Example:
    >>> store = PictureStore(max_bytes=5)
    >>> first, second = store.add(b"abc"), store.add(b"def")
    >>> store.get(first), store.get(second)
    (None, b'def')
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0

    def add(self, picture: bytes) -> str:
        """Keeps a picture, and forgets others if there is no room.

        Returns:
            str. What it is known by, 64 hexadecimal digits.
        """
        key = hashlib.sha256(picture).hexdigest()
        if key not in self._held:
            self._held[key] = picture
            self._num_bytes += len(picture)
        self._held.move_to_end(key)
        while self._num_bytes > self._max_bytes:
            _, forgotten = self._held.popitem(last=False)
            self._num_bytes -= len(forgotten)
        return key

    def get(self, key: str) -> bytes | None:
        """A picture, or None if it is not known (any more)."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)
