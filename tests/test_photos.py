"""The data floor on real photos: both layouts, Microsoft's odd files, and planted copies."""

import io
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.prepare import prepare
from pipeline.sources.source import open_source
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION

PHOTOS = Path(__file__).parents[2] / "shared" / "data"
KAGGLE, MICROSOFT = PHOTOS / "dogs-vs-cats-8k.zip", PHOTOS / "petimages-400.zip"

pytestmark = pytest.mark.skipif(
    not (KAGGLE.is_file() and MICROSOFT.is_file()), reason=f"the real photos are not there: {PHOTOS}"
)


def section(source: Path, cache: Path, **options) -> SimpleNamespace:
    """The `data` section of params.yaml."""
    defaults = {
        "sha256": None,
        "image_size": 64,
        "splits": "given",
        "verify": False,
        "validation": 0.2,
        "test": 0.2,
        "limit": None,
    }
    return SimpleNamespace(
        **{"source": str(source), "cache": str(cache), "max_rejected": 0.05, **defaults, **options}
    )


def test_kaggles_layout(tmp_path):
    source = open_source(str(KAGGLE), tmp_path)
    assert len(source.images) == 8000
    assert source.rejected == source.notes == ()
    assert {image.label for image in source.images} == {"cat", "dog"}
    assert all(image.name.startswith(f"train/{image.label}.") for image in source.images)


def test_preparing_a_part_of_kaggles_photos(tmp_path):
    prepared = prepare(section(KAGGLE, tmp_path, limit=500), seed=42)
    assert prepared.counts(TRAIN) == {"cat": 150, "dog": 150}
    assert prepared.counts(VALIDATION) == prepared.counts(TEST) == {"cat": 50, "dog": 50}
    assert prepared.rejected == ()
    with zipfile.ZipFile(KAGGLE) as archive:
        for index in (0, 123, 499):
            photo = Image.open(io.BytesIO(archive.read(prepared.names[index]))).convert("RGB")
            assert np.array_equal(prepared.images[index], photo.resize((64, 64), Image.Resampling.BILINEAR))


def test_microsofts_layout(tmp_path, capsys):
    prepared = prepare(section(MICROSOFT, tmp_path), seed=42)
    assert prepared.classes == ("Cat", "Dog")
    assert len(prepared.names) == 400
    assert prepared.counts(TRAIN) == {"Cat": 120, "Dog": 120}
    told = capsys.readouterr().out
    assert "400 images in 2 classes (Cat 200, Dog 200): 240 train, 80 validation, 80 test" in told


def without_jfif(jpeg: bytes) -> bytes:
    """Drops the APP0 segment, as some 1,600 of Microsoft's files lack it."""
    assert jpeg[:4] == b"\xff\xd8\xff\xe0"
    (length,) = struct.unpack(">H", jpeg[4:6])
    return jpeg[:2] + jpeg[4 + length :]


def encoded_as(kind: str):
    def encode(jpeg: bytes) -> bytes:
        file = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).save(file, kind)
        return file.getvalue()

    return encode


def photos() -> dict[str, bytes]:
    with zipfile.ZipFile(MICROSOFT) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".jpg")}


def test_microsofts_true_rate_of_odd_files_passes(tmp_path, capsys):
    # 1,600 of 25,000 are odd: 6.4 %, here 26 of 400. Few of them cannot be read at all.
    files = photos()
    names = sorted(files)[::15][:26]
    odd = [without_jfif] * 17 + [encoded_as("BMP")] * 2 + [encoded_as("PNG")] * 2 + [encoded_as("GIF")] * 2
    for name, make_odd in zip(names, odd, strict=False):
        files[name] = make_odd(files[name])
    empty = names[len(odd) :]
    assert len(empty) == 3
    files |= dict.fromkeys(empty, b"")
    path = tmp_path / "kagglecatsanddogs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, "readme[1].txt": b"", "PetImages/Cat/Thumbs.db": b"\xd0\xcf"}.items():
            archive.writestr(name, data)

    prepared = prepare(section(path, tmp_path / "cache"), seed=42)
    assert [(image.name, image.reason) for image in prepared.rejected] == [
        (name, "empty file") for name in empty
    ]
    assert len(prepared.names) == 397
    told = capsys.readouterr().out
    assert "files that are no images, ignored: 2" in told
    assert f"3 images left out, listed in {prepared.path / 'rejected.csv'}: 3 empty file" in told


def test_stripping_the_jfif_header_changes_nothing_that_is_seen():
    name, jpeg = next(iter(photos().items()))
    one, other = (Image.open(io.BytesIO(data)).convert("RGB") for data in (jpeg, without_jfif(jpeg)))
    assert np.array_equal(np.asarray(one), np.asarray(other)), name


def test_copies_in_other_formats_stay_in_one_split(tmp_path):
    originals = photos()
    copied = sorted(originals)[::8]
    assert len(copied) == 50
    files = dict(originals)
    for number, name in enumerate(copied):
        stem = name.removesuffix(".jpg")
        files[f"{stem}-copy.png"] = encoded_as("PNG")(originals[name])
        if number % 2:
            files[f"{stem}-copy.bmp"] = encoded_as("BMP")(originals[name])
    path = tmp_path / "copies.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)

    prepared = prepare(section(path, tmp_path / "cache"), seed=42)
    split = dict(zip(prepared.names, prepared.splits, strict=True))
    assert len(split) == 400 + 50 + 25
    for name in files:
        original = name.partition("-copy")[0].removesuffix(".jpg") + ".jpg"
        assert split[name] == split[original]
    assert len(prepared.identical) == 50
    assert prepared.conflicts == ()
    copies_in = {split[name] for name in copied}
    assert copies_in == {TRAIN, VALIDATION, TEST}, "copies are in every split, each group in one"


def test_ants_and_bees_keep_their_validation_split(tmp_path, capsys):
    data = section(PHOTOS / "hymenoptera.zip", tmp_path / "cache")
    prepare(data, seed=42)
    *_, splits, counts = capsys.readouterr().out.splitlines()
    assert "test is cut from the training images" in splits
    assert counts == "398 images in 2 classes (ants 194, bees 204): 196 train, 153 validation, 49 test"


def test_the_photos_split_as_they_are_prepared_are_the_same_training(tmp_path):
    """The split that was drawn, handed in as folders: the same rows in the same order."""
    drawn = prepare(section(MICROSOFT, tmp_path / "cache"), seed=42)
    path = tmp_path / "split.zip"
    with zipfile.ZipFile(MICROSOFT) as source, zipfile.ZipFile(path, "w") as archive:
        for name, split in zip(drawn.names, drawn.splits, strict=True):
            folder, _, file = name.rpartition("/")
            archive.writestr(f"photos/{split}/{folder.rpartition('/')[2]}/{file}", source.read(name))
    given = prepare(section(path, tmp_path / "cache"), seed=1)
    assert given.digest == drawn.digest
    for split in (TRAIN, VALIDATION, TEST):
        assert np.array_equal(given.images[given.indices(split)], drawn.images[drawn.indices(split)])
