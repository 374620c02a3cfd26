"""Formats, modes and sizes of image files, read from their headers without decoding."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.runtime.hardware import cores
from pipeline.sources.images import UnreadableImage, header
from pipeline.sources.source import SourceImage

_BATCH = 4096  # images submitted to the threads at once


@dataclass(frozen=True, eq=False)
class HeaderStats:
    """The headers of n images.

    Attributes:
        formats: Number of images by format, named as Pillow names it.
        modes: Number of images by mode: RGB, L, CMYK, ….
        sizes: (n, 2) int64, width and height in px; 0 if a header could not be read.
    """

    formats: Counter[str]
    modes: Counter[str]
    sizes: np.ndarray

    def upsampled(self, side: int) -> np.ndarray:
        """The images with a side below `side` px: (k,) int64 rows, ascending."""
        shortest = self.sizes.min(axis=1)
        return np.flatnonzero((shortest > 0) & (shortest < side))

    def size_range(self) -> str:
        """The smallest, the median and the largest size, by area, as text."""
        readable = self.sizes[self.sizes.min(axis=1) > 0]
        if not len(readable):
            return "unknown"
        ranked = readable[np.argsort(readable.prod(axis=1), kind="stable")]
        texts = [f"{width:,} x {height:,}" for width, height in ranked[[0, len(ranked) // 2, -1]].tolist()]
        if len(set(texts)) == 1:
            return f"all {texts[0]} px"
        return f"from {texts[0]} to {texts[2]} px, median {texts[1]} px"


def read_headers(images: Sequence[SourceImage]) -> HeaderStats:
    """Read the headers of images, on all cores."""
    found = list(_headers(images))
    readable = [header for header in found if header is not None]
    return HeaderStats(
        formats=Counter(kind for kind, _, _ in readable),
        modes=Counter(mode for _, mode, _ in readable),
        sizes=np.array([header[2] if header else (0, 0) for header in found], np.int64).reshape(-1, 2),
    )


def _headers(images: Sequence[SourceImage]) -> Iterator[tuple[str, str, tuple[int, int]] | None]:
    with ThreadPoolExecutor(cores()) as executor:
        for first in range(0, len(images), _BATCH):
            yield from executor.map(_header, images[first : first + _BATCH])


def _header(image: SourceImage) -> tuple[str, str, tuple[int, int]] | None:
    """The format, mode and size of an image; None if it was removed since `prepare`."""
    try:
        return header(image.read())
    except UnreadableImage:
        return None
