"""A prepared set: what is in it, when it is made again, and that nothing is left half-written."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from pipeline.dataset import storage
from pipeline.dataset.decode import write_images
from pipeline.dataset.prepare import DamagedPrepared, Prepared, open_prepared, prepare
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_directory, disk_errors
from pipeline.sources.source import open_source
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION

ROOT = Path(__file__).parents[1]
SIZE = 16


@dataclass(frozen=True)
class Data:
    """The `data` section of params.yaml."""

    source: str
    cache: str
    sha256: str | None = None
    image_size: int = SIZE
    splits: str = "given"
    verify: bool = False
    validation: float = 0.2
    test: float = 0.2
    limit: int | None = None
    max_rejected: float = 0.05


def image(number: int, size: tuple[int, int] = (20, 24)) -> Image.Image:
    """Noise: a different image for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pets(count: int = 10) -> dict[str, bytes]:
    """`count` cats and as many dogs, all different."""
    cats = {f"cat/{number}.png": encode(image(number)) for number in range(count)}
    return cats | {f"dog/{number}.png": encode(image(1000 + number)) for number in range(count)}


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def data(tmp_path) -> Data:
    """Ten cats and ten dogs."""
    root = write_tree(tmp_path / "pets", pets())
    return Data(str(root), str(tmp_path / "cache"))


def sets(data: Data) -> list[Path]:
    """What stands in the folder of prepared sets."""
    return sorted(path for path in Path(data.cache).glob("prepared/*") if path.name != ".lock")


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# What is in it


def test_the_images_their_labels_and_their_order(data):
    prepared = prepare(data, seed=1)
    assert prepared.classes == ("cat", "dog")
    assert list(prepared.names) == sorted(pets())
    assert prepared.labels.tolist() == [0] * 10 + [1] * 10
    assert prepared.labels.dtype == np.int64
    assert prepared.image_size == SIZE
    assert prepared.images.shape == (20, SIZE, SIZE, 3)
    assert prepared.images.dtype == np.uint8
    for name, image in zip(prepared.names, prepared.images, strict=True):
        original = Image.open(io.BytesIO(pets()[name]))
        assert np.array_equal(image, original.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def test_what_grows_with_the_images_is_a_read_only_memory_map(data):
    prepared = prepare(data, seed=1)
    for array in (prepared.images, prepared.splits, prepared.image_digests):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_splits(data):
    prepared = prepare(data, seed=1)
    indices = {split: prepared.indices(split) for split in (TRAIN, VALIDATION, TEST)}
    assert {split: len(found) for split, found in indices.items()} == {TRAIN: 12, VALIDATION: 4, TEST: 4}
    assert sorted(np.concatenate(list(indices.values()))) == list(range(20))
    for found in indices.values():
        assert found.dtype == np.int64
        assert (np.diff(found) > 0).all()
    assert prepared.counts(TRAIN) == {"cat": 6, "dog": 6}
    assert prepared.counts(VALIDATION) == prepared.counts(TEST) == {"cat": 2, "dog": 2}


def test_no_test_split(data):
    prepared = prepare(replace(data, test=0.0), seed=1)
    assert len(prepared.indices(TEST)) == 0
    assert len(prepared.indices(TRAIN)) == 16


def test_the_files(data):
    prepared = prepare(data, seed=1)
    names = {"images.npy", "labels.npy", "splits.npy", "digests.npy", "names.npy", "name_ends.npy"}
    names |= {"index.csv", "rejected.csv", "metadata.json"}
    assert {path.name for path in prepared.path.iterdir()} == {*names, "stamps.json"}
    heading, *index = rows(prepared.path / "index.csv")
    assert heading == ["name", "label", "split", "digest"]
    assert [row[0] for row in index] == list(prepared.names)
    assert [row[1] for row in index] == ["cat"] * 10 + ["dog"] * 10
    assert [row[2] for row in index] == prepared.splits.tolist()
    assert rows(prepared.path / "rejected.csv") == [["name", "reason"]]
    metadata = json.loads((prepared.path / "metadata.json").read_text())
    assert metadata["classes"] == ["cat", "dog"]
    assert metadata["digest"] == prepared.digest
    assert metadata["parameters"]["seed"] == 1
    for name in names - {"metadata.json"}:
        content = (prepared.path / name).read_bytes()
        recorded = metadata["files"][name]
        assert recorded == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_any_number_of_classes_and_a_zip(tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for label in ("emu", "ant", "cow", "bee"):
            for number in range(3):
                archive.writestr(f"{label}.{number}.png", encode(image(10 * ord(label[0]) + number)))
    prepared = prepare(Data(str(path), str(tmp_path / "cache")), seed=1)
    assert prepared.classes == ("ant", "bee", "cow", "emu")
    assert prepared.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert prepared.counts(TEST) == {"ant": 1, "bee": 1, "cow": 1, "emu": 1}


def test_names_in_any_script_survive_the_files(tmp_path):
    odd = ["кошка №1.png", "猫" * 83 + "ab.png", 'comma, "quote".png', "line\nbreak.png", "caf\udce9.png"]
    assert max(len(os.fsencode(name)) for name in odd) == 255
    files = {f"два слова/{name}": encode(image(number)) for number, name in enumerate(odd)}
    files |= {f"dog/{number}.png": encode(image(9 + number)) for number in range(5)}
    files["dog/\n.png"] = b""
    root = write_tree(tmp_path / "pets", files)
    prepared = prepare(Data(str(root), str(tmp_path / "cache"), max_rejected=0.1), seed=1)
    readable = [f"два слова/{name}".replace("\udce9", "\\xe9") for name in odd]
    assert set(prepared.names) == {*readable, *(f"dog/{number}.png" for number in range(5))}
    assert prepared.classes == ("dog", "два слова")
    assert prepared.rejected[0].name == "dog/\n.png"
    again = open_prepared(prepared.path)
    assert (again.names, again.rejected) == (prepared.names, prepared.rejected)
    each = [again.names[row] for row in range(len(again.names))]
    assert again.names == each == list(again.names)
    assert again.names != each[:-1]
    assert again.names != [*each[:-1], "another"]


def test_the_progress_bar_and_the_console(data, capsys):
    prepare(data, seed=1)
    assert capsys.readouterr().out.splitlines() == [
        f"source: {data.source}: one folder per class",
        "20 images in 2 classes (cat 10, dog 10): 12 train, 4 validation, 4 test",
    ]


# Rejected images


def rejecting(tmp_path: Path, **options) -> Data:
    """Eighteen good images of twenty-one: one empty, one text, one stray."""
    files = pets()
    files["cat/3.png"] = b""
    files["dog/7.png"] = b"not an image"
    files["stray.png"] = encode(image(5000))
    return Data(str(write_tree(tmp_path / "pets", files)), str(tmp_path / "cache"), **options)


def test_rejected_images_leave_no_holes(tmp_path, capsys):
    prepared = prepare(rejecting(tmp_path, max_rejected=0.2), seed=1)
    assert list(prepared.names) == sorted(set(pets()) - {"cat/3.png", "dog/7.png"})
    for name, image in zip(prepared.names, prepared.images, strict=True):
        original = Image.open(io.BytesIO(pets()[name]))
        assert np.array_equal(image, original.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert rows(prepared.path / "rejected.csv") == [
        ["name", "reason"],
        ["cat/3.png", "empty file"],
        ["dog/7.png", "not an image: its content is none of JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM, AVIF"],
        ["stray.png", "no label: beside or below the class folders, not in one"],
    ]
    assert (
        f"3 images left out, listed in {prepared.path / 'rejected.csv'}: "
        "1 empty file, 1 not an image, 1 no label\n"
    ) in capsys.readouterr().out


def test_a_fraction_that_is_just_allowed(tmp_path):
    files = pets() | {f"cat/{number}.png": b"" for number in range(3)}
    root = write_tree(tmp_path / "pets", files)
    prepare(Data(str(root), str(tmp_path / "cache"), max_rejected=0.15), seed=1)  # 3 of 20


def test_too_many_rejected(tmp_path):
    data = rejecting(tmp_path, max_rejected=0.1)  # 3 of 21 are
    with pytest.raises(UserError) as raised:
        prepare(data, seed=1)
    listed = Path(data.cache) / "rejected.csv"
    assert str(raised.value) == (
        "more images cannot be used than data.max_rejected=0.1 allows: 3 images left out, listed in "
        f"{listed}: 1 empty file, 1 not an image, 1 no label; fix or remove them, or raise "
        "data.max_rejected"
    )
    assert [row[0] for row in rows(listed)] == ["name", "cat/3.png", "dog/7.png", "stray.png"]
    assert sets(data) == []


def test_too_many_rejected_of_a_set_that_was_made_before(tmp_path):
    data = rejecting(tmp_path, max_rejected=0.2)
    prepared = prepare(data, seed=1)
    with pytest.raises(UserError, match=re.escape(f"listed in {prepared.path / 'rejected.csv'}: 1 empty")):
        prepare(replace(data, max_rejected=0.1), seed=1)
    assert sets(data) == [prepared.path]


def test_a_class_that_loses_all_its_images(tmp_path):
    files = pets() | {f"dog/{number}.png": b"" for number in range(10)}
    data = Data(str(write_tree(tmp_path / "pets", files)), str(tmp_path / "cache"), max_rejected=1.0)
    with pytest.raises(UserError, match="class 'dog' has 0 different images") as raised:
        prepare(data, seed=1)
    listed = Path(data.cache) / "rejected.csv"
    assert f"10 images left out, listed in {listed}: 10 empty file" in str(raised.value)
    assert len(rows(listed)) == 11
    assert sets(data) == []


def test_a_class_that_is_too_small_stops_before_anything_is_made(tmp_path):
    files = {name: content for name, content in pets().items() if name[:3] == "cat" or name[4] in "01"}
    data = Data(str(write_tree(tmp_path / "pets", files)), str(tmp_path / "cache"))
    with pytest.raises(UserError, match="class 'dog' has 2 different images"):
        prepare(data, seed=1)
    assert not Path(data.cache).exists()


def test_a_limit(data):
    prepared = prepare(replace(data, limit=8), seed=1)
    assert len(prepared.names) == 8
    assert prepared.counts(TRAIN) == {"cat": 2, "dog": 2}
    assert prepared.names != prepare(replace(data, limit=8), seed=2).names
    with pytest.raises(UserError, match=r"class 'cat' has 2 different images, .* raise data.limit=5"):
        prepare(replace(data, limit=5), seed=1)


def test_chunks_after_a_rejection_are_moved_down(tmp_path):
    files = pets(100)  # decoded in chunks of 32
    empty = [*(f"cat/{number}.png" for number in (0, 1, 33, 77)), "dog/99.png", "dog/5.png"]
    root = write_tree(tmp_path / "pets", files | dict.fromkeys(empty, b""))
    prepared = prepare(Data(str(root), str(tmp_path / "cache")), seed=1)
    assert list(prepared.names) == sorted(set(files) - set(empty))
    assert (prepared.path / "images.npy").stat().st_size == 128 + 194 * SIZE * SIZE * 3
    for name, image in zip(prepared.names, prepared.images, strict=True):
        original = Image.open(io.BytesIO(files[name]))
        assert np.array_equal(image, original.resize((SIZE, SIZE), Image.Resampling.BILINEAR)), name


# The digest


def digest_of(tmp_path: Path, files: Mapping[str, bytes], seed: int = 1, **options) -> str:
    name = hashlib.sha256(repr((sorted(files.items()), options)).encode()).hexdigest()[:8]
    root = write_tree(tmp_path / name, files)
    return prepare(Data(str(root), str(tmp_path / "cache"), **options), seed).digest


def test_the_digest_does_not_follow_names_times_or_encoding(tmp_path):
    expected = digest_of(tmp_path, pets())
    renamed = {name.replace("/", f"/{9 - int(name[4])}-"): content for name, content in pets().items()}
    assert list(renamed) != sorted(renamed), "the order changes too"
    assert digest_of(tmp_path, renamed) == expected
    bitmaps = {name: encode(Image.open(io.BytesIO(content)), "BMP") for name, content in pets().items()}
    assert digest_of(tmp_path, bitmaps) == expected
    flat = {f"train/{name.replace('/', '.')}": content for name, content in pets().items()}
    assert digest_of(tmp_path, flat) == expected
    root = write_tree(tmp_path / "touched", pets())
    data = Data(str(root), str(tmp_path / "cache"))
    first = prepare(data, seed=1)
    os.utime(root / "cat/0.png", ns=(1, 1))
    second = prepare(data, seed=1)
    assert second.path != first.path, "a touched file is looked at again"
    assert second.digest == first.digest == expected


def test_the_digest_follows_pixels_labels_splits_and_size(tmp_path):
    files = pets()
    one_pixel = Image.open(io.BytesIO(files["cat/0.png"]))
    red, green, blue = one_pixel.getpixel((3, 3))
    one_pixel.putpixel((3, 3), (255 - red, green, blue))
    moved = {name.replace("cat/0", "dog/99"): content for name, content in files.items()}
    renamed_class = {name.replace("cat", "lynx"): content for name, content in files.items()}
    digests = [
        digest_of(tmp_path, files),
        digest_of(tmp_path, files | {"cat/0.png": encode(one_pixel)}),
        digest_of(tmp_path, files | {"cat/10.png": encode(image(77))}),
        digest_of(tmp_path, moved),
        digest_of(tmp_path, renamed_class),
        digest_of(tmp_path, files, seed=2),
        digest_of(tmp_path, files, test=0.1),
        digest_of(tmp_path, files, image_size=SIZE + 1),
    ]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)


def letter(number: int) -> Image.Image:
    """A white page with one short dark line above its middle: no two have the same."""
    page = np.full((65, 48, 3), 255, np.uint8)
    page[number % 30, number // 30 : 20 + number // 30] = 40
    return Image.fromarray(page)


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Data:
    """150 pages that have size and middle row in common, and 450 noises; half of each in each class."""
    folder = tmp_path_factory.mktemp("letters")
    files = {f"{'ab'[number % 2]}/page{number}.png": encode(letter(number)) for number in range(150)}
    files |= {f"{'ab'[number % 2]}/noise{number}.png": encode(image(number)) for number in range(450)}
    root = write_tree(folder / "letters", files)
    return Data(str(root), str(folder / "cache"))


def test_images_that_share_most_of_their_pixels_are_split_at_random(letters):
    """A fifth of 150 pages is 30: a hypergeometric with sd 4.2, and four of these off at most."""
    for seed in range(3):
        prepared = prepare(letters, seed)
        page = np.array(["page" in name for name in prepared.names])
        for split in (VALIDATION, TEST):
            assert (prepared.splits == split).sum() == 120
            assert 13 <= (prepared.splits[page] == split).sum() <= 47


def test_the_splits_do_not_follow_the_size(letters):
    small = prepare(replace(letters, image_size=2), 1)
    assert len(np.unique(small.images, axis=0)) < len(small.names), "some are equal once they are resized"
    assert not small.identical
    assert (small.splits == prepare(letters, 1).splits).all()


# Identical images


def test_identical_images_stay_in_one_split_and_conflicts_are_told(tmp_path, capsys):
    files = pets()
    for number in range(5):  # five cats once more in another encoding, and a cat among the dogs
        files[f"cat/copy{number}.bmp"] = encode(image(number), "BMP")
    files["dog/stranger.png"] = encode(image(9))
    for seed in range(5):
        root = write_tree(tmp_path / "pets", files)
        prepared = prepare(Data(str(root), str(tmp_path / "cache")), seed)
        split = dict(zip(prepared.names, prepared.splits, strict=True))
        for number in range(5):
            assert split[f"cat/copy{number}.bmp"] == split[f"cat/{number}.png"]
        assert split["dog/stranger.png"] == split["cat/9.png"]
    assert len(prepared.identical) == 6
    (conflict,) = prepared.conflicts
    assert [prepared.names[index] for index in conflict] == ["cat/9.png", "dog/stranger.png"]
    told = capsys.readouterr()
    assert "12 images in 6 groups of identical ones, each kept in one split" in told.out
    conflicts = "2 identical images carry different labels: 'cat/9.png' (cat), 'dog/stranger.png' (dog)"
    assert set(told.err.splitlines()) == {f"warning: {conflicts}"}


# Given splits


def exported(prepared: Prepared, source: Path, root: Path) -> Path:
    """The images of a set in folders of its splits, each under its own name."""
    for name, label, split in zip(prepared.names, prepared.labels, prepared.splits, strict=True):
        path = root / "wrapper" / split / prepared.classes[label] / name.replace("/", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, path)
    return root


def test_a_split_that_is_handed_in_is_the_same_set(tmp_path, data):
    """To the digest and the order of each split's rows, so that a training gives the same digits."""
    drawn = prepare(data, seed=3)
    root = exported(drawn, Path(data.source), tmp_path / "exported")
    given = prepare(replace(data, source=str(root)), seed=9)
    assert given.digest == drawn.digest
    for split in (TRAIN, VALIDATION, TEST):
        assert np.array_equal(given.images[given.indices(split)], drawn.images[drawn.indices(split)])
        assert np.array_equal(given.labels[given.indices(split)], drawn.labels[drawn.indices(split)])
    again = prepare(replace(data, source=str(root), splits="random"), seed=3)
    assert again.digest == drawn.digest, "pooled, they are drawn as they were"
    assert again.path != given.path


def leaking(tmp_path: Path) -> Data:
    """Forty training images, of which numbers 0 and 33 of the cats are among six held out."""
    files = {f"train/{name}": content for name, content in pets(40).items()}
    files |= {f"val/cat/{number}.png": encode(image(9000 + number)) for number in range(2)}
    files |= {f"val/dog/{number}.png": encode(image(9100 + number)) for number in range(2)}
    files |= {f"val/cat/copy{number}.bmp": encode(image(number), "BMP") for number in (0, 33)}
    return Data(str(write_tree(tmp_path / "leaking", files)), str(tmp_path / "cache"), max_rejected=0.0)


def test_a_training_image_that_is_held_out_too_is_left_out_counted_and_named(tmp_path, capsys):
    prepared = prepare(leaking(tmp_path), seed=1)
    told = capsys.readouterr().out.splitlines()
    assert told[1] == (
        "splits as given: train 'train', validation 'val'; "
        "test is cut from the training images (data.test=0.2)"
    )
    assert told[-2] == (
        "2 training images left out as identical to a validation or test image: "
        "'train/cat/0.png' ('val/cat/copy0.bmp'), 'train/cat/33.png' ('val/cat/copy33.bmp')"
    )
    assert told[-1] == "84 images in 2 classes (cat 42, dog 42): 62 train, 6 validation, 16 test"
    assert [row[0] for row in rows(prepared.path / "rejected.csv")] == [
        "name", "train/cat/0.png", "train/cat/33.png"
    ]  # fmt: skip
    assert (prepared.path / "images.npy").stat().st_size == 128 + 84 * SIZE * SIZE * 3
    for name, image in zip(prepared.names, prepared.images, strict=True):
        original = Image.open(Path(tmp_path / "leaking" / name))
        assert np.array_equal(image, original.resize((SIZE, SIZE), Image.Resampling.BILINEAR)), name


def test_a_limit_takes_its_share_of_each_given_split(tmp_path):
    prepared = prepare(replace(leaking(tmp_path), limit=43, test=0.0), seed=1)
    assert prepared.counts(TRAIN) == {"cat": 20, "dog": 20}
    assert prepared.counts(VALIDATION) == {"cat": 2, "dog": 1}


def test_a_class_that_a_given_split_lacks(tmp_path, capsys):
    files = {f"train/{name}": content for name, content in pets().items()}
    files |= {"val/cat/1.png": encode(image(9000)), "val/cat/2.png": encode(image(9001))}
    data = Data(str(write_tree(tmp_path / "pets", files)), str(tmp_path / "cache"), test=0.0)
    assert prepare(data, seed=1).counts(VALIDATION) == {"cat": 2, "dog": 0}
    assert capsys.readouterr().err == "warning: validation has no image of 'dog': no score tells about it\n"


# Found again, or made again


def test_a_second_prepare_finds_the_first(data, capsys):
    first = prepare(data, seed=1)
    told = capsys.readouterr().out
    written = {path.name: path.stat().st_mtime_ns for path in first.path.iterdir()}
    second = prepare(data, seed=1)
    assert second.path == first.path
    assert {path.name: path.stat().st_mtime_ns for path in second.path.iterdir()} == written
    assert capsys.readouterr().out == told
    for field in ("classes", "image_size", "digest", "names", "rejected"):
        assert getattr(second, field) == getattr(first, field)
    for field in ("images", "labels", "splits", "image_digests"):
        assert np.array_equal(getattr(second, field), getattr(first, field))


def test_another_seed_or_parameter_is_another_set(data):
    variants = [
        prepare(data, seed=1),
        prepare(data, seed=2),
        prepare(replace(data, image_size=8), seed=1),
        prepare(replace(data, validation=0.3), seed=1),
        prepare(replace(data, test=0.1), seed=1),
        prepare(replace(data, limit=18), seed=1),
    ]
    assert len({prepared.path for prepared in variants}) == len(variants) == len(sets(data))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    """Of each file but the one that holds times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "stamps.json"}


DAMAGES = {
    "no metadata": lambda folder: (folder / "metadata.json").unlink(),
    "empty metadata": lambda folder: (folder / "metadata.json").write_text(""),
    "metadata that is no object": lambda folder: (folder / "metadata.json").write_text("[]"),
    "metadata without sums": lambda folder: (folder / "metadata.json").write_text('{"format": 1}'),
    "another format": lambda folder: (folder / "metadata.json").write_text('{"format": 0}'),
    "half the images": lambda folder: os.truncate(folder / "images.npy", 3000),
    "no images": lambda folder: (folder / "images.npy").unlink(),
    "a flipped bit in the images": lambda folder: flip(folder / "images.npy"),
    "a flipped bit in the labels": lambda folder: flip(folder / "labels.npy"),
    "a flipped bit in the splits": lambda folder: flip(folder / "splits.npy"),
    "a flipped bit in the names": lambda folder: flip(folder / "names.npy"),
    "a flipped bit in the index": lambda folder: flip(folder / "index.csv"),
    "no rejected.csv": lambda folder: (folder / "rejected.csv").unlink(),
    "a folder in place of a file": lambda folder: (
        (folder / "index.csv").unlink(),
        (folder / "index.csv").mkdir(),
    ),
    "an edited size": lambda folder: (folder / "metadata.json").write_text(
        (folder / "metadata.json").read_text().replace(f'"image_size": {SIZE}', '"image_size": 17')
    ),
    "an empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_noticed_and_made_again(data, damage, capsys):
    folder = prepare(data, seed=1).path
    whole = contents(folder)
    DAMAGES[damage](folder)
    with pytest.raises(DamagedPrepared):
        open_prepared(folder)
    capsys.readouterr()
    assert prepare(data, seed=1).path == folder
    told = [line for line in capsys.readouterr().err.splitlines() if "are damaged" in line]
    assert len(told) == 1
    assert told[0].startswith(f"warning: the prepared images in {folder} are damaged (")
    assert contents(folder) == whole
    assert sets(data) == [folder]


def flip_unseen(path: Path) -> None:
    """Damage that keeps size and times, as a failing disk's."""
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_files_are_read_again_only_where_size_or_time_changed_or_on_demand(data, capsys):
    prepared = prepare(data, seed=1)
    flip_unseen(prepared.path / "images.npy")
    assert open_prepared(prepared.path).digest == prepared.digest, "it was not read"
    with pytest.raises(DamagedPrepared, match=r"images\.npy is not what was written"):
        open_prepared(prepared.path, verify=True)
    prepare(data, seed=1)
    assert "damaged" not in capsys.readouterr().err
    prepare(replace(data, verify=True), seed=1)
    assert "images.npy is not what was written" in capsys.readouterr().err
    (prepared.path / "images.npy").touch()
    flip_unseen(prepared.path / "images.npy")
    with pytest.raises(DamagedPrepared, match=r"images\.npy is not what was written"):
        open_prepared(prepared.path)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_files_are_read_again_without_their_stamps(data, damage):
    prepared = prepare(data, seed=1)
    stamps = prepared.path / "stamps.json"
    stamps.unlink() if damage == "missing" else stamps.write_text("{")
    flip_unseen(prepared.path / "images.npy")
    with pytest.raises(DamagedPrepared, match=r"images\.npy is not what was written"):
        open_prepared(prepared.path)


def test_a_set_that_was_copied_is_read_once_and_then_trusted(data, tmp_path):
    prepared = prepare(data, seed=1)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in prepared.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert open_prepared(copy).digest == prepared.digest
    flip_unseen(copy / "images.npy")
    open_prepared(copy)
    assert (copy / "stamps.json").read_bytes() != (prepared.path / "stamps.json").read_bytes()
    assert {path.name for path in copy.iterdir()} == {path.name for path in prepared.path.iterdir()}


def test_the_digest_is_told_without_opening_the_set(data):
    prepared = prepare(data, seed=1)
    os.truncate(prepared.path / "images.npy", 10)
    assert storage.digest_of(prepared.path) == prepared.digest
    DAMAGES["another format"](prepared.path)
    assert storage.digest_of(prepared.path) is None
    DAMAGES["empty metadata"](prepared.path)
    assert storage.digest_of(prepared.path) is None
    assert storage.digest_of(prepared.path / "nowhere") is None


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(DamagedPrepared, match=r"metadata\.json is missing"):
        open_prepared(tmp_path / "nowhere")


# Nothing half-written


def test_what_a_killed_writer_left_is_removed(data):
    program = f"""if True:
        import sys
        from pathlib import Path
        from pipeline.runtime.files import atomic_directory, prepare_lock
        with prepare_lock(Path({str(data.cache)!r}, "prepared")):
            with atomic_directory(Path({str(data.cache)!r}, "prepared", "key")) as partial:
                (partial / "images.npy").write_bytes(bytes(1000))
                print("ready", flush=True)
                sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"ready\n"
        assert [path.name for path in sets(data)] == ["key.partial"]
        writer.kill()
    assert [path.name for path in sets(data)] == ["key.partial"]
    prepared = prepare(data, seed=1)
    assert sets(data) == [prepared.path]


def test_what_was_left_goes_too_where_the_set_is_found_but_not_while_another_is_made(data):
    prepared = prepare(data, seed=1)
    remains = prepared.path.with_name("other.partial")
    remains.mkdir()
    with FileLock(prepared.path.parent / ".lock"):
        prepare(data, seed=1)
        assert sets(data) == sorted([prepared.path, remains])
    prepare(data, seed=1)
    assert sets(data) == [prepared.path]


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux images are decoded in processes")
def test_decoding_processes_end_with_a_killed_parent():
    program = """if True:
        import os, tempfile, time
        from pipeline.dataset.decode import write_images
        from pipeline.sources.source import SourceImage
        def read():
            os.write(1, b"decoding\\n")
            time.sleep(600)
        images = [SourceImage(str(number), "cat", read) for number in range(1000)]
        write_images(images, 16, tempfile.TemporaryFile(buffering=0))
    """
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout.readline() == b"decoding\n"
    finally:
        parent.kill()
        parent.communicate(timeout=30)  # ends when the last process that holds stdout has ended


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux images are decoded in processes")
def test_a_decoding_process_that_is_killed_is_an_error(tmp_path):
    program = """if True:
        import os, signal, tempfile
        from pipeline.dataset.decode import write_images
        from pipeline.sources.source import SourceImage
        from pipeline.runtime.errors import UserError
        def read():
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            write_images([SourceImage("1.jpg", "cat", read)], 16, tempfile.TemporaryFile(buffering=0))
        except UserError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith(
        "a process that decodes images was killed, most likely because memory ran out"
    )


def test_two_processes_that_prepare_the_same_set_both_end_well(tmp_path):
    data = Data(str(write_tree(tmp_path / "pets", pets(100))), str(tmp_path / "cache"))
    program = f"""if True:
        from types import SimpleNamespace
        from pipeline.dataset.prepare import prepare
        prepared = prepare(SimpleNamespace(**{vars(data)!r}), seed=1)
        print(prepared.digest, int(prepared.images.sum()))
    """
    processes = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    last_lines = {process.communicate(timeout=60)[0].splitlines()[-1] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(last_lines) == 1
    assert sets(data) == [prepare(data, seed=1).path]


# Full disks


@pytest.fixture
def mount(tmp_path) -> Iterator:
    """Mounts small file systems of their own, and unmounts them."""
    with contextlib.ExitStack() as stack:

        def mounted(options: str) -> Path:
            folder = tmp_path / "disk"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", str(folder)], check=True)
            return folder

        yield mounted


def test_a_disk_that_is_too_small_is_refused_before_decoding(data, mount):
    disk = mount("size=256k")
    small = replace(data, cache=str(disk / "cache"), image_size=100)  # 20 * 100 * 100 * 3 = 600 kB
    with pytest.raises(UserError) as raised:
        prepare(small, seed=1)
    assert f"the disk of {disk / 'cache'} is too full: prepared images need 660 kB, 262.1 kB are free" in str(
        raised.value
    )
    assert "free some space, lower data.limit or data.image_size, or set data.cache" in str(raised.value)
    assert sets(small) == []


def test_a_disk_that_fills_up_while_images_are_decoded(data, mount):
    disk = mount("size=256k")
    folder, images = disk / "key", open_source(data.source, disk).images
    with (
        pytest.raises(UserError) as raised,
        disk_errors(disk, 600_000),
        atomic_directory(folder) as partial,
        (partial / "images.npy").open("x+b", buffering=0) as file,
    ):
        write_images(images, 100, file)
    assert f"cannot write prepared images to {disk}: No space left on device; they need 600 kB" in str(
        raised.value
    )
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_after_the_images(data, mount):
    # Six names: the root, cache, prepared, .lock, the partial folder, images.npy; none left for labels.npy.
    disk = mount("size=10m,nr_inodes=6")
    full = replace(data, cache=str(disk / "cache"))
    with pytest.raises(
        UserError, match=rf"cannot write prepared images to {disk}/cache: No space left on device"
    ):
        prepare(full, seed=1)
    assert sets(full) == []


def test_a_limit_on_file_sizes(data):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write prepared images to .*: File too large"):
            prepare(replace(data, image_size=100), seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sets(data) == []


def test_a_cache_that_is_a_file(tmp_path, data):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write prepared images to .*: Not a directory"):
        prepare(replace(data, cache=str(tmp_path / "file")), seed=1)


# What it costs


def test_memory_does_not_grow_with_the_images(tmp_path):
    root = write_tree(tmp_path / "pets", pets(150))
    data = Data(str(root), str(tmp_path / "cache"), image_size=512)  # 300 * 512 * 512 * 3 = 236 MB
    program = f"""if True:
        import resource
        from types import SimpleNamespace
        from pipeline.dataset.prepare import prepare
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        prepare(SimpleNamespace(**{vars(data)!r}), seed=1)
        used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(max(used) - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    shutil.rmtree(data.cache)
    assert int(done.stdout.splitlines()[-1]) < 80_000, "kB"


def test_preparing_imports_no_framework(data):
    program = f"""if True:
        import sys
        from types import SimpleNamespace
        from pipeline.dataset.prepare import prepare
        prepare(SimpleNamespace(**{vars(data)!r}), seed=1)
        print(sorted({{"tensorflow", "keras", "mlflow", "sklearn", "requests"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == "", "no progress bar where there is no terminal"


def test_a_set_is_opened_by_type(data):
    prepared = prepare(data, seed=1)
    assert isinstance(prepared, Prepared)
    assert issubclass(DamagedPrepared, ValueError)
