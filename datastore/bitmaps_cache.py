"""A cache bounded in bytes, from which what was used least recently goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteLimitedCache(Generic[Key, Value]):
    """Keep values of known sizes while they take at most `limit_bytes` together; thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Return the bytes of all values held."""
        return self._bytes

    def get(self, key: Key) -> Value | None:
        """Return a value that is held, or None."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                return None
            self._held.move_to_end(key)
            return held[0]

    def put(self, key: Key, value: Value, nbytes: int) -> bool:
        """Hold a value, letting go of others to make room; tell whether it fits at all."""
        with self._lock:
            if nbytes > self.limit_bytes:
                return False
            self._drop(key)
            while self._bytes + nbytes > self.limit_bytes:
                self._drop(next(iter(self._held)))
            self._held[key] = (value, nbytes)
            self._bytes += nbytes
            return True

    def items(self) -> list[tuple[Key, Value]]:
        """Return all that is held, least recently used first."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._held.items()]

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def _drop(self, key: Key) -> None:
        _, nbytes = self._held.pop(key, (None, 0))
        self._bytes -= nbytes
