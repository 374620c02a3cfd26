"""Pictures that are nearly the same: resized, saved again, made lighter, cropped a little, or mirrored.

Three looks, each slower and stricter than the one before. The first compares perceptual hashes (ImageHash's
`phash`, after N. Krawetz, "Looks Like It", 2011: the signs of the lowest 8 x 8 frequencies of the gray
picture against their median), the second colour thumbnails, the third larger ones, one of them cropped in
several ways, for where it is the crop that made the difference.

Measured on 8,000 photos at 64 px, of which 400 at a time were planted again, resized to a half, saved as JPEG
of quality 40, made 10 % lighter or darker, or cropped by 2 or 5 %: more than 99 % of each kind pass the first
look, and of the strangers among the photos 9,077 pairs of 32 million (with `dhash` 30,377, with `whash`
814,382). Of pairs that pass the second, planted ones have 0.97 and more in the third, strangers 0.93 at most.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, product

import imagehash
import numpy as np
from PIL import Image, ImageOps

from pipeline.machine import cores

DISTANCE = 16  # bits of 64 in which the hashes of near duplicates differ at most
SIMILAR = 0.75  # correlation of their thumbnails, at least
SAME = 0.95  # and of the larger ones, fitted
MOST = 20_000  # pairs that get a third look: with more, the pictures are too alike for pairs to tell anything

_HASHED = 32  # px; what `phash` makes of any picture first
_THUMBNAIL = 16  # px
_FITTED = 32  # px
_CROPS = (0.025, 0.05)  # parts of the width and height that are cut off
_COMPARED = 1 << 21  # hashes compared at once: 16 MB
_CHECKED = 4096  # pairs of thumbnails compared at once: 25 MB


@dataclass(frozen=True)
class Pair:
    """Two pictures that are nearly the same.

    Attributes:
        first: index of one.
        second: index of the other, higher.
        distance: bits of 64 in which their hashes differ.
        correlation: of the pictures, fitted, up to 1.
        mirrored: whether it is one's mirror image that is like the other.
    """

    first: int
    second: int
    distance: int
    correlation: float
    mirrored: bool


def near(images: np.ndarray, rows: np.ndarray) -> tuple[list[Pair], bool]:
    """Finds pictures that are nearly the same.

    Memory: 800 bytes a picture, and some 100 MB. Time on two cores: 4 s for 8,000 pictures, most of it for
    their hashes; comparing them grows with the square of their number, and takes half of it for 100,000.

    Args:
        images: uint8 (n, size, size, 3), RGB; a memory map is read once.
        rows: (k,) int64 ascending, the pictures to compare: of identical ones, one.

    Returns:
        Each pair once, in the order of the indices, and whether these are all: False where more than `MOST`
        would have to be looked at.
    """
    hashes, mirrored, thumbnails = _fingerprints(images, rows)
    complete, best = True, {}
    for flipped in (False, True):
        others = (mirrored, thumbnails[:, :, ::-1]) if flipped else (hashes, thumbnails)
        candidates = list(islice(_candidates(hashes, thumbnails, *others), MOST + 1))
        complete &= len(candidates) <= MOST
        for pair in _same(images, rows, candidates[:MOST], flipped):
            key = pair.first, pair.second  # a symmetrical picture is like its mirror image as well
            if key not in best or pair.correlation > best[key].correlation:
                best[key] = pair
    return [best[key] for key in sorted(best)], complete


def groups(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Numbers pictures so that those which are linked by pairs, over others too, have the same number.

    Returns:
        (count,) int64: of each picture, the lowest index in its group.
    """
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return np.array([root(index) for index in range(count)], np.int64)


def _fingerprints(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes, (k,) uint64, of pictures and of their mirror images, and thumbnails, (k, 16, 16, 3) uint8."""
    hashes = np.empty(len(rows), np.uint64)
    mirrored = np.empty(len(rows), np.uint64)
    thumbnails = np.empty((len(rows), _THUMBNAIL, _THUMBNAIL, 3), np.uint8)
    for number, row in enumerate(rows):
        image = Image.fromarray(images[row])
        gray = image.convert("L").resize((_HASHED, _HASHED), Image.Resampling.LANCZOS)
        hashes[number], mirrored[number] = _hash(gray), _hash(ImageOps.mirror(gray))
        thumbnails[number] = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return hashes, mirrored, thumbnails


def _hash(gray: Image.Image) -> np.uint64:
    return np.packbits(imagehash.phash(gray).hash).view(np.uint64)[0]


def _candidates(
    hashes: np.ndarray, thumbnails: np.ndarray, other_hashes: np.ndarray, other_thumbnails: np.ndarray
) -> Iterator[tuple[int, int, int]]:
    """The pairs of a picture and a later other one that pass two looks, and the distance of their hashes."""
    count = len(hashes)
    length = max(1, _COMPARED // max(1, count))

    def block(first: int) -> list[tuple[int, int, int]]:
        distances = np.bitwise_count(hashes[first : first + length, None] ^ other_hashes[None, first:])
        left, right = np.nonzero(distances <= DISTANCE)  # distances: (length, count - first) uint8
        later = right > left
        left, right = left[later], right[later]
        bits = distances[left, right]
        left, right = left + first, right + first
        similar = _correlations(thumbnails, other_thumbnails, left, right) >= SIMILAR
        return list(zip(left[similar].tolist(), right[similar].tolist(), bits[similar].tolist(), strict=True))

    with ThreadPoolExecutor(cores()) as executor:  # numpy lets go of the GIL
        starts = range(0, count, length)
        for batch in range(0, len(starts), 64):  # so that whoever has enough pairs can stop here
            for found in executor.map(block, starts[batch : batch + 64]):
                yield from found


def _same(
    images: np.ndarray, rows: np.ndarray, candidates: Sequence[tuple[int, int, int]], mirrored: bool
) -> list[Pair]:
    """Those candidates that pass the third look, as pairs of indices into `images`."""

    def fitted(candidate: tuple[int, int, int]) -> Pair:
        one, other, distance = candidate
        first, second = int(rows[one]), int(rows[other])
        image = images[second, :, ::-1] if mirrored else images[second]
        return Pair(first, second, distance, _fitted(images[first], image), mirrored)

    with ThreadPoolExecutor(cores()) as executor:
        return [pair for pair in executor.map(fitted, candidates) if pair.correlation >= SAME]


def _fitted(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two pictures, one or the other of them cropped as makes it highest."""
    ones, others = (_standardized(_crops(image)) for image in (one, other))  # the first is not cropped
    return float(max((ones @ others[0]).max(), (others @ ones[0]).max()))


def _crops(image: np.ndarray) -> np.ndarray:
    """A picture, and crops of it from its corners, edges and middle: (k, 32, 32, 3) uint8."""
    whole, side = Image.fromarray(image), image.shape[0]
    boxes = [(0.0, 0.0, side, side)]
    for cut in (part * side for part in _CROPS):
        for x, y in product((0, cut / 2, cut), repeat=2):
            boxes.append((x, y, x + side - cut, y + side - cut))
    size = (_FITTED, _FITTED)
    return np.stack([np.asarray(whole.resize(size, Image.Resampling.BILINEAR, box=box)) for box in boxes])


def _correlations(
    thumbnails: np.ndarray, others: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Pearson's correlation of pairs of thumbnails, over pixels and channels: (k,) float32.

    0 where one is of a single colour.
    """
    found = [np.empty(0, np.float32)]
    for first in range(0, len(left), _CHECKED):
        one = _standardized(thumbnails[left[first : first + _CHECKED]])
        other = _standardized(others[right[first : first + _CHECKED]])
        found.append(np.einsum("ij,ij->i", one, other))
    return np.concatenate(found)


def _standardized(thumbnails: np.ndarray) -> np.ndarray:
    """(k, side, side, 3) uint8 to (k, 3 * side ** 2) float32 of mean 0 and length 1."""
    values = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)
