"""Images that are nearly the same: resized, saved again, made lighter, cropped a little, or mirrored.

Three looks, each slower and stricter than the one before. The first compares perceptual hashes (ImageHash's
`phash`, after N. Krawetz, "Looks Like It", 2011: the signs of the lowest 8 x 8 frequencies of the gray
image against their median), the second colour thumbnails, the third larger ones, one of them cropped in
several ways, for where it is the crop that made the difference.

Measured on 8,000 photos at 64 px, of which 400 at a time were planted again, resized to a half, saved as JPEG
of quality 40, made 10 % lighter or darker, or cropped by 2 or 5 %: more than 99 % of each kind pass the first
look, and of the strangers among the photos 9,077 pairs of 32 million (with `dhash` 30,377, with `whash`
814,382). Of pairs that pass the second, planted ones have 0.97 and more in the third, strangers 0.93 at most.

Up to `EXACT` images every pair gets the first look. Of more, only pairs whose hashes agree in some bits (16
bits of a million images), drawn at random, in one of 64 draws (locality-sensitive hashing: P. Indyk, R.
Motwani, "Approximate nearest neighbors", 1998), and 12 bits may differ. Of 1,502 pairs that pass all looks
on 8,000 photos with 1,500 planted copies, as many bits as a million images have leave 99.5 %, and add none.
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
DISTANCE = 16  # bits of 64 in which the hashes of near duplicates differ at most
NEARER = 12  # the same where not all pairs are compared: strangers grow with the square of the number
SIMILAR = 0.75  # correlation of their thumbnails, at least
SAME = 0.95  # and of the larger ones, fitted
MOST = 20_000  # pairs that get a third look: with more, the images are too alike for pairs to tell anything

_HASHED = 32  # px; what `phash` makes of any image first
_THUMBNAIL = 16  # px
_FITTED = 32  # px
_CROPS = (0.025, 0.05)  # parts of the width and height that are cut off
_COMPARED = 1 << 21  # hashes compared at once: 16 MB
_CHECKED = 4096  # pairs of thumbnails compared at once: 25 MB
_DRAWS = 64  # of bits that hashes must agree in
_MOST_SEEN = 20  # pairs per image after which no further bits are drawn
_SHARING = 16  # images that agree in a draw of bits, if hashes were evenly spread
_MOST_SHARING = 256  # with each of which an image is compared at most


@dataclass(frozen=True)
class Pair:
    """Two images that are nearly the same.

    Attributes:
        first: index of one.
        second: index of the other, higher.
        distance: bits of 64 in which their hashes differ.
        correlation: of the images, fitted, up to 1.
        mirrored: whether it is one's mirror image that is like the other.
    """

    first: int
    second: int
    distance: int
    correlation: float
    mirrored: bool


def near(images: np.ndarray, rows: np.ndarray) -> tuple[list[Pair], bool]:
    """Finds images that are nearly the same.

    Memory: 800 bytes an image, and some 100 MB; beyond `EXACT` up to 600 bytes an image more. CPU time:
    5 s for 8,000 images, most of it for hashes and the third look; 14 s for 25,000, since the
    comparison of all pairs grows with their square; beyond `EXACT` little more than in proportion, some 3
    min for a million.

    Args:
        images: uint8 (n, size, size, 3), RGB; a memory map is read once.
        rows: (k,) int64 ascending, the images to compare: of identical ones, one.

    Returns:
        Each pair once, in the order of the indices, and whether these are all: False where more than `MOST`
        would have to be looked at, or not all pairs of so many images are compared.
    """
    hashes, mirrored, thumbnails = _fingerprints(images, rows)
    complete, best = len(rows) <= EXACT, {}
    for flipped in (False, True):
        others = (mirrored, thumbnails[:, :, ::-1]) if flipped else (hashes, thumbnails)
        candidates = list(islice(_candidates(hashes, thumbnails, *others), MOST + 1))
        complete &= len(candidates) <= MOST
        for pair in _same(images, rows, candidates[:MOST], flipped):
            key = pair.first, pair.second  # a symmetrical image is like its mirror image as well
            if key not in best or pair.correlation > best[key].correlation:
                best[key] = pair
    return [best[key] for key in sorted(best)], complete


def groups(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Numbers images so that those which are linked by pairs, over others too, have the same number.

    Returns:
        (count,) int64: of each image, the lowest index in its group.
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
    """Hashes, (k,) uint64, of images and of their mirror images, and thumbnails, (k, 16, 16, 3) uint8."""
    hashes = np.empty(len(rows), np.uint64)
    mirrored = np.empty(len(rows), np.uint64)
    thumbnails = np.empty((len(rows), _THUMBNAIL, _THUMBNAIL, 3), np.uint8)

    def fill(first: int) -> None:
        grays = []
        for number, row in enumerate(rows[first : first + _CHECKED], start=first):
            image = Image.fromarray(images[row])
            gray = image.convert("L").resize((_HASHED, _HASHED), Image.Resampling.LANCZOS)
            grays.append(np.asarray(gray, np.float64))
            thumbnails[number] = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
        own = slice(first, first + _CHECKED)
        hashes[own], mirrored[own] = _hashes(np.stack(grays))

    with ThreadPoolExecutor(cores()) as executor:
        list(executor.map(fill, range(0, len(rows), _CHECKED)))
    return hashes, mirrored, thumbnails


def _hashes(grays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ImageHash's `phash` of (k, 32, 32) float, and of their mirror images: each (k,) uint64."""
    places = np.arange(_HASHED)
    cosines = np.cos(np.pi / _HASHED * np.outer(np.arange(8), places + 0.5))  # (8, 32), of the DCT
    lowest = cosines @ grays @ cosines.T  # (k, 8, 8)
    return _signs(lowest), _signs(lowest * (-1) ** np.arange(8))  # a mirror turns the odd frequencies round


def _signs(frequencies: np.ndarray) -> np.ndarray:
    """(k, 8, 8) to (k,) uint64: which of them are above their median."""
    flat = frequencies.reshape(len(frequencies), 64)
    return np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1).view(np.uint64)[:, 0]


def _candidates(
    hashes: np.ndarray, thumbnails: np.ndarray, other_hashes: np.ndarray, other_thumbnails: np.ndarray
) -> Iterator[tuple[int, int, int]]:
    """The pairs of an image and a later other one that pass two looks, and the distance of their hashes."""
    near = _all_near if len(hashes) <= EXACT else _likely_near
    for left, right, bits in near(hashes, other_hashes):
        similar = _correlations(thumbnails, other_thumbnails, left, right) >= SIMILAR
        yield from zip(left[similar].tolist(), right[similar].tolist(), bits[similar].tolist(), strict=True)


_Block = tuple[np.ndarray, np.ndarray, np.ndarray]  # left and right indices, and the distance of their hashes


def _all_near(hashes: np.ndarray, others: np.ndarray) -> Iterator[_Block]:
    """All pairs of a hash and a later other one that are near, in blocks."""
    count = len(hashes)
    length = max(1, _COMPARED // max(1, count))

    def block(first: int) -> _Block:
        distances = np.bitwise_count(hashes[first : first + length, None] ^ others[None, first:])
        left, right = np.nonzero(distances <= DISTANCE)  # distances: (length, count - first) uint8
        later = right > left
        left, right = left[later], right[later]
        return left + first, right + first, distances[left, right]

    with ThreadPoolExecutor(cores()) as executor:  # numpy lets go of the GIL
        starts = range(0, count, length)
        for batch in range(0, len(starts), 64):  # so that whoever has enough pairs can stop here
            yield from executor.map(block, starts[batch : batch + 64])


def _likely_near(hashes: np.ndarray, others: np.ndarray) -> Iterator[_Block]:
    """Most pairs of a hash and a later other one that are near, each once, a block for each draw of bits."""
    count, seen = len(hashes), np.empty(0, np.int64)
    rng, width = np.random.default_rng(0), max(1, round(math.log2(count / _SHARING)))
    bits = (rng.choice(64, width, replace=False).astype(np.uint64) for _ in range(_DRAWS))
    masks = [np.bitwise_or.reduce(np.uint64(1) << drawn) for drawn in bits]

    def near(mask: np.uint64) -> np.ndarray:
        found = [np.empty(0, np.int64)]
        for left, right in _sharing(hashes & mask, others & mask):
            close = np.bitwise_count(hashes[left] ^ others[right]) <= NEARER
            found.append(left[close] * count + right[close])
        return np.concatenate(found)

    with ThreadPoolExecutor(cores()) as executor:
        for batch in range(0, _DRAWS, 8):  # so that whoever has enough pairs can stop here
            for pairs in executor.map(near, masks[batch : batch + 8]):
                found = np.setdiff1d(pairs, seen)
                seen = np.union1d(seen, found)
                left, right = np.divmod(found, count)
                yield left, right, np.bitwise_count(hashes[left] ^ others[right])
                if len(seen) > _MOST_SEEN * count:  # too alike for pairs to tell anything
                    return


def _sharing(keys: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The indices of a key and a later other one that are equal, of `_MOST_SHARING` at most, in blocks."""
    count, index = len(keys), np.arange(len(keys))
    distinct, groups = np.unique(others, return_inverse=True)
    ranked = np.sort(groups * count + index)  # by group, then by index
    own = np.searchsorted(distinct, keys).clip(max=len(distinct) - 1)
    left = np.flatnonzero(distinct[own] == keys)
    left = left[np.argsort(own[left], kind="stable")]  # searching is faster in order
    starts = np.searchsorted(ranked, own[left] * count + left, side="right")
    ends = np.searchsorted(ranked, (own[left] + 1) * count)
    lengths = np.minimum(ends - starts, _MOST_SHARING)
    blocks = np.cumsum(lengths) // _COMPARED
    for block in np.split(np.arange(len(left)), np.flatnonzero(np.diff(blocks)) + 1):
        repeats = lengths[block]
        places = np.arange(repeats.sum()) + np.repeat(starts[block] - (np.cumsum(repeats) - repeats), repeats)
        yield np.repeat(left[block], repeats), ranked[places] % count


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
    """The correlation of two images, one or the other of them cropped as makes it highest."""
    ones, others = (_standardized(_crops(image)) for image in (one, other))  # the first is not cropped
    return float(max((ones @ others[0]).max(), (others @ ones[0]).max()))


def _crops(image: np.ndarray) -> np.ndarray:
    """An image, and crops of it from its corners, edges and middle: (k, 32, 32, 3) uint8."""
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
