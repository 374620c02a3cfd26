"""What the files of images are: formats, modes and sizes, read from their headers without decoding them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.runtime.hardware import cores
from pipeline.sources.images import UnreadableImage, header
from pipeline.sources.source import SourceImage

_BATCH = 4096  # images handed to the threads at once


@dataclass(frozen=True, eq=False)
class Looks:
    """The headers of n images.

    Attributes:
        formats: how many have each format, by Pillow's name.
        modes: how many have each mode: RGB, L, CMYK, ….
        sizes: (n, 2) int, width and height in px; 0 where a header could not be read.
    """

    formats: Counter[str]
    modes: Counter[str]
    sizes: np.ndarray

    def smaller(self, side: int) -> np.ndarray:
        """The images that have to be enlarged to a square of `side` px: (k,) int, ascending."""
        known = self.sizes.min(axis=1) > 0
        return np.flatnonzero(known & (self.sizes.min(axis=1) < side))

    def spread(self) -> str:
        """The smallest, the median and the largest image, by area, in words."""
        known = self.sizes[self.sizes.min(axis=1) > 0]
        if not len(known):
            return "unknown"
        ranked = known[np.argsort(known.prod(axis=1), kind="stable")]
        texts = [f"{width:,} x {height:,}" for width, height in ranked[[0, len(ranked) // 2, -1]].tolist()]
        if len(set(texts)) == 1:
            return f"all {texts[0]} px"
        return f"from {texts[0]} to {texts[2]} px, median {texts[1]} px"


def look(images: Sequence[SourceImage]) -> Looks:
    """Reads the headers of images, on all cores."""
    found = list(_headers(images))
    known = [header for header in found if header is not None]
    return Looks(
        formats=Counter(kind for kind, _, _ in known),
        modes=Counter(mode for _, mode, _ in known),
        sizes=np.array([header[2] if header else (0, 0) for header in found], np.int64).reshape(-1, 2),
    )


def _headers(images: Sequence[SourceImage]) -> Iterator[tuple[str, str, tuple[int, int]] | None]:
    with ThreadPoolExecutor(cores()) as executor:
        for first in range(0, len(images), _BATCH):
            yield from executor.map(_header, images[first : first + _BATCH])


def _header(image: SourceImage) -> tuple[str, str, tuple[int, int]] | None:
    try:
        return header(image.read())
    except UnreadableImage:  # it has gone since it was prepared
        return None
