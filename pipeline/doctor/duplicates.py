"""Near duplicates: images that were resized, recompressed, brightened, slightly cropped, or mirrored.

Three stages, each slower and stricter than the last. The first compares perceptual hashes (ImageHash's
`phash`, after N. Krawetz, "Looks Like It", 2011: the signs of the lowest 8 x 8 frequencies of the gray
image relative to their median), the second colour thumbnails, the third larger thumbnails under several
crops of one of the two images.

Measured on 8,000 photos at 64 px, with 400 planted copies at a time, at half the size, as JPEG of quality 40,
10 % brighter or darker, or cropped by 2 or 5 %: more than 99 % of each kind pass the first stage, and of
distinct photos 9,077 of 32 million pairs (30,377 with `dhash`, 814,382 with `whash`). Of the pairs that pass
the second stage, planted ones correlate by 0.97 and more in the third, distinct ones by 0.93 at most.

Up to `EXACT` images, the first stage compares every pair. With more, it compares only pairs whose hashes
agree in a random subset of bits (16 bits for a million images) in one of 64 draws (locality-sensitive
hashing: P. Indyk, R. Motwani, "Approximate nearest neighbors", 1998), and allows a distance of 12 bits. On
8,000 photos with 1,500 planted copies, 1,502 pairs pass all stages; with the bits of a million images, 99.5 %
of these are found, and no others.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
from PIL import Image

from pipeline.runtime.hardware import cores

EXACT = 30_000  # images, up to which all pairs are compared
MAX_DISTANCE = 16  # bits of 64, between the hashes of near duplicates
MAX_DISTANCE_SAMPLED = 12  # bits, above `EXACT` images: false pairs grow with the square of the images
MIN_CORRELATION = 0.75  # of thumbnails
MIN_FITTED = 0.95  # of larger thumbnails, under the best crop
MAX_PAIRS = 20_000  # that enter the third stage; with more, the images are too similar for pairs to matter

_HASHED = 32  # px; `phash` first resizes to this
_THUMBNAIL = 16  # px
_FITTED = 32  # px
_CROPS = (0.025, 0.05)  # fractions of width and height that are cut off
_HASHES_AT_ONCE = 1 << 21  # compared: 16 MB
_THUMBNAILS_AT_ONCE = 4096  # pairs compared: 25 MB
_DRAWS = 64  # of random bits in which two hashes must agree
_DRAWS_AT_ONCE = 8
_MAX_PAIRS_PER_IMAGE = 20  # then no further bits are drawn
_BUCKET = 16  # images that agree in a draw of bits, if hashes were evenly spread
_MAX_BUCKET = 256  # images of a bucket that an image is compared with


@dataclass(frozen=True)
class Pair:
    """Two near duplicates.

    Attributes:
        first: Index of one image.
        second: Index of the other, higher than `first`.
        distance: Bits in which their hashes differ, 0 to 64.
        correlation: Pearson's, of the images under the best crop, up to 1.
        mirrored: Whether one image resembles the mirror image of the other.
    """

    first: int
    second: int
    distance: int
    correlation: float
    mirrored: bool


def near(images: np.ndarray, rows: np.ndarray) -> tuple[list[Pair], bool]:
    """Find near duplicates.

    Memory: 800 bytes per image, and some 100 MB; above `EXACT`, up to 600 bytes more per image. CPU time:
    5 s for 8,000 images, most of it for hashes and the third stage; 14 s for 25,000, as the comparison of
    all pairs is quadratic; above `EXACT` almost linear, some 3 min for a million.

    Args:
        images: uint8 (n, size, size, 3), RGB; a memory map is read once.
        rows: (k,) int64 ascending, the images to compare; one of each group of identical images.

    Returns:
        Each pair once, ordered by indices, and whether these are all. False if more than `MAX_PAIRS` enter
        the third stage, or if there are more than `EXACT` images.
    """
    hashes, mirrored, thumbnails = _fingerprints(images, rows)
    complete, best = len(rows) <= EXACT, dict[tuple[int, int], Pair]()
    for flipped in (False, True):
        others = (mirrored, thumbnails[:, :, ::-1]) if flipped else (hashes, thumbnails)
        candidates = list(islice(_candidates(hashes, thumbnails, *others), MAX_PAIRS + 1))
        complete &= len(candidates) <= MAX_PAIRS
        for pair in _same(images, rows, candidates[:MAX_PAIRS], flipped):
            key = pair.first, pair.second  # a symmetric image also resembles its mirror image
            if key not in best or pair.correlation > best[key].correlation:
                best[key] = pair
    return [best[key] for key in sorted(best)], complete


def groups(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """The connected components of the graph of images whose edges are `pairs`.

    Returns:
        (count,) int64, for each image the lowest index in its component.

    >>> groups(5, [(3, 1), (3, 4)]).tolist()
    [0, 1, 2, 1, 1]
    """
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return np.array([root(index) for index in range(count)], np.int64)


def _fingerprints(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes, (k,) uint64, of images and of their mirror images, and thumbnails, (k, 16, 16, 3) uint8."""
    hashes = np.empty(len(rows), np.uint64)
    mirrored = np.empty(len(rows), np.uint64)
    thumbnails = np.empty((len(rows), _THUMBNAIL, _THUMBNAIL, 3), np.uint8)

    def fill(first: int) -> None:
        grays = []
        for number, row in enumerate(rows[first : first + _THUMBNAILS_AT_ONCE], start=first):
            image = Image.fromarray(images[row])
            gray = image.convert("L").resize((_HASHED, _HASHED), Image.Resampling.LANCZOS)
            grays.append(np.asarray(gray, np.float64))
            thumbnails[number] = np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))
        own = slice(first, first + _THUMBNAILS_AT_ONCE)
        hashes[own], mirrored[own] = _hashes(np.stack(grays))

    with ThreadPoolExecutor(cores()) as executor:
        list(executor.map(fill, range(0, len(rows), _THUMBNAILS_AT_ONCE)))
    return hashes, mirrored, thumbnails


def _hashes(grays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ImageHash's `phash` of (k, 32, 32) float, and of their mirror images: each (k,) uint64."""
    places = np.arange(_HASHED)
    cosines = np.cos(np.pi / _HASHED * np.outer(np.arange(8), places + 0.5))  # (8, 32), of the DCT
    lowest = cosines @ grays @ cosines.T  # (k, 8, 8)
    return _signs(lowest), _signs(lowest * (-1) ** np.arange(8))  # mirroring negates the odd frequencies


def _signs(frequencies: np.ndarray) -> np.ndarray:
    """(k, 8, 8) to (k,) uint64: a bit per frequency, set if it is above their median."""
    flat = frequencies.reshape(len(frequencies), 64)
    return np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1).view(np.uint64)[:, 0]


def _candidates(
    hashes: np.ndarray, thumbnails: np.ndarray, other_hashes: np.ndarray, other_thumbnails: np.ndarray
) -> Iterator[tuple[int, int, int]]:
    """The pairs (i, j), i < j, that pass two stages, and the distance of their hashes."""
    near = _all_near if len(hashes) <= EXACT else _sampled_near
    for left, right, bits in near(hashes, other_hashes):
        similar = _correlations(thumbnails, other_thumbnails, left, right) >= MIN_CORRELATION
        yield from zip(left[similar].tolist(), right[similar].tolist(), bits[similar].tolist(), strict=True)


_Block = tuple[np.ndarray, np.ndarray, np.ndarray]  # left and right indices, and the distance of their hashes


def _all_near(hashes: np.ndarray, others: np.ndarray) -> Iterator[_Block]:
    """All pairs (i, j), i < j, of `hashes` and `others` within `MAX_DISTANCE`, in blocks."""
    count = len(hashes)
    length = max(1, _HASHES_AT_ONCE // max(1, count))

    def block(first: int) -> _Block:
        distances = np.bitwise_count(hashes[first : first + length, None] ^ others[None, first:])
        left, right = np.nonzero(distances <= MAX_DISTANCE)  # distances: (length, count - first) uint8
        later = right > left
        left, right = left[later], right[later]
        return left + first, right + first, distances[left, right]

    with ThreadPoolExecutor(cores()) as executor:  # NumPy releases the GIL
        starts = range(0, count, length)
        for batch in range(0, len(starts), 64):  # the caller may stop after each
            yield from executor.map(block, starts[batch : batch + 64])


def _sampled_near(hashes: np.ndarray, others: np.ndarray) -> Iterator[_Block]:
    """Most pairs (i, j), i < j, within `MAX_DISTANCE_SAMPLED`, each once, a block per draw of bits."""
    count, seen = len(hashes), np.empty(0, np.int64)
    rng, width = np.random.default_rng(0), max(1, round(math.log2(count / _BUCKET)))
    bits = (rng.choice(64, width, replace=False).astype(np.uint64) for _ in range(_DRAWS))
    masks = [np.bitwise_or.reduce(np.uint64(1) << drawn) for drawn in bits]

    def near(mask: np.uint64) -> np.ndarray:
        found = [np.empty(0, np.int64)]
        for left, right in _buckets(hashes & mask, others & mask):
            close = np.bitwise_count(hashes[left] ^ others[right]) <= MAX_DISTANCE_SAMPLED
            found.append(left[close] * count + right[close])
        return np.concatenate(found)

    with ThreadPoolExecutor(cores()) as executor:
        for batch in range(0, _DRAWS, _DRAWS_AT_ONCE):  # the caller may stop after each
            for pairs in executor.map(near, masks[batch : batch + _DRAWS_AT_ONCE]):
                found = np.setdiff1d(pairs, seen)
                seen = np.union1d(seen, found)
                left, right = np.divmod(found, count)
                yield left, right, np.bitwise_count(hashes[left] ^ others[right])
                if len(seen) > _MAX_PAIRS_PER_IMAGE * count:  # the images are too similar
                    return


def _buckets(keys: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pairs (i, j), i < j, with keys[i] == others[j], at most `_MAX_BUCKET` per i, in blocks."""
    count, index = len(keys), np.arange(len(keys))
    distinct, groups = np.unique(others, return_inverse=True)
    ranked = np.sort(groups * count + index)  # by group, then by index
    own = np.searchsorted(distinct, keys).clip(max=len(distinct) - 1)
    left = np.flatnonzero(distinct[own] == keys)
    left = left[np.argsort(own[left], kind="stable")]  # faster to search in order
    starts = np.searchsorted(ranked, own[left] * count + left, side="right")
    ends = np.searchsorted(ranked, (own[left] + 1) * count)
    lengths = np.minimum(ends - starts, _MAX_BUCKET)
    blocks = np.cumsum(lengths) // _HASHES_AT_ONCE
    for block in np.split(np.arange(len(left)), np.flatnonzero(np.diff(blocks)) + 1):
        repeats = lengths[block]
        places = np.arange(repeats.sum()) + np.repeat(starts[block] - (np.cumsum(repeats) - repeats), repeats)
        yield np.repeat(left[block], repeats), ranked[places] % count


def _same(
    images: np.ndarray, rows: np.ndarray, candidates: Sequence[tuple[int, int, int]], mirrored: bool
) -> list[Pair]:
    """The candidates that pass the third stage, as pairs of indices into `images`."""

    def fitted(candidate: tuple[int, int, int]) -> Pair:
        first, second, distance = int(rows[candidate[0]]), int(rows[candidate[1]]), candidate[2]
        image = images[second, :, ::-1] if mirrored else images[second]
        return Pair(first, second, distance, _fitted(images[first], image), mirrored)

    with ThreadPoolExecutor(cores()) as executor:
        return [pair for pair in executor.map(fitted, candidates) if pair.correlation >= MIN_FITTED]


def _fitted(one: np.ndarray, other: np.ndarray) -> float:
    """The highest correlation of two images over the crops of either."""
    ones, others = (_standardized(_crops(image)) for image in (one, other))  # [0] is the whole
    return float(max((ones @ others[0]).max(), (others @ ones[0]).max()))


def _crops(image: np.ndarray) -> np.ndarray:
    """An image, and its crops at the corners, edges and centre: (k, 32, 32, 3) uint8."""
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

    0 if one thumbnail has a single colour.
    """
    found = [np.empty(0, np.float32)]
    for first in range(0, len(left), _THUMBNAILS_AT_ONCE):
        one = _standardized(thumbnails[left[first : first + _THUMBNAILS_AT_ONCE]])
        other = _standardized(others[right[first : first + _THUMBNAILS_AT_ONCE]])
        found.append(np.einsum("ij,ij->i", one, other))
    return np.concatenate(found)


def _standardized(thumbnails: np.ndarray) -> np.ndarray:
    """(k, side, side, 3) uint8 to (k, 3 * side ** 2) float32 of mean 0 and norm 1."""
    values = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)
