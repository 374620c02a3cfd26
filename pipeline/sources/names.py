"""Many names in few bytes: as Python's texts a million of them take 80 MB in each process."""

from collections.abc import Iterator, Sequence
from operator import eq

import numpy as np


class Names(Sequence[str]):
    """Names read from two arrays when they are due, which may be memory maps that processes share.

    >>> list(Names(*packed(["cat.0.jpg", "Über.1.jpg"])))
    ['cat.0.jpg', 'Über.1.jpg']

    Args:
        text: uint8 (bytes,), all names one after the other in UTF-8.
        ends: int64 (n,), where in `text` each one ends.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray):
        self._text, self._ends = text, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]  # slices are not needed
        count = len(self._ends)
        row = int(row) + count if row < 0 else int(row)
        if not 0 <= row < count:
            raise IndexError(row)
        start = int(self._ends[row - 1]) if row else 0
        return bytes(self._text[start : int(self._ends[row])]).decode()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return np.array_equal(self._ends, other._ends) and np.array_equal(self._text, other._text)
        return isinstance(other, tuple | list) and len(other) == len(self) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # as of any mutable sequence

    def __iter__(self) -> Iterator[str]:
        text, start = memoryview(self._text.data), 0
        for end in self._ends.tolist():
            yield str(text[start:end], "utf-8")
            start = end


def packed(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays that `Names` reads."""
    encoded = [name.encode() for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends
