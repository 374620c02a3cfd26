"""Every layout of a folder and of a zip, and everything that can be wrong with one."""

import contextlib
import functools
import http.server
import io
import os
import re
import shutil
import struct
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.errors import UserError
from pipeline.sources import sample
from pipeline.sources.images import UnreadableImage, decode
from pipeline.sources.source import Rejection, Source, open_source

Make = Callable[[Mapping[str, bytes]], Path]


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    root.mkdir(exist_ok=True)
    return root


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def named(*names: str) -> dict[str, bytes]:
    """Files whose content is their name: enough for what is only listed."""
    return {name: name.encode() for name in names}


@pytest.fixture(params=["folder", "zip"])
def make(request, tmp_path) -> Make:
    """Writes files as a folder, and as a zip of it."""
    if request.param == "folder":
        return functools.partial(write_tree, tmp_path / "images")
    return functools.partial(write_zip, tmp_path / "images.zip")


def labels(source: Source) -> dict[str, str]:
    return {image.name: image.label for image in source.images}


def opened(path: Path) -> Source:
    return open_source(str(path), path.parent / "cache")


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        opened(path)
    return str(raised.value)


# Layouts


def test_one_folder_a_class(make):
    source = opened(make(named("Dog/b.png", "Cat/1.jpg", "Dog/a.JPEG")))
    assert list(labels(source).items()) == [("Cat/1.jpg", "Cat"), ("Dog/a.JPEG", "Dog"), ("Dog/b.png", "Dog")]
    assert [image.read() for image in source.images] == [b"Cat/1.jpg", b"Dog/a.JPEG", b"Dog/b.png"]
    assert source.rejected == source.notes == ()
    assert "one folder per class" in source.description


def test_three_classes_and_names_that_look_like_labels_in_class_folders(make):
    source = opened(make(named("train/bird.1.jpg", "bus/cat.0.jpg", "bike/dog.9.jpg")))
    assert labels(source) == {"train/bird.1.jpg": "train", "bus/cat.0.jpg": "bus", "bike/dog.9.jpg": "bike"}


@pytest.mark.parametrize("wrapper", ["PetImages", "train", "a/b"])
def test_class_folders_deeper_down(make, wrapper):
    source = opened(make(named(f"{wrapper}/Cat/0.jpg", f"{wrapper}/Dog/0.jpg")))
    assert labels(source) == {f"{wrapper}/Cat/0.jpg": "Cat", f"{wrapper}/Dog/0.jpg": "Dog"}
    assert f"under '{wrapper}'" in source.description


@pytest.mark.parametrize("wrapper", ["", "train/", "dogs-vs-cats/train/"])
def test_labels_in_names(make, wrapper):
    names = ("cat.0.jpg", "cat.10.png", "dog.0.jpg", "red.panda.7.jpg")
    source = opened(make(named(*(wrapper + name for name in names))))
    assert labels(source) == dict(
        zip((wrapper + name for name in names), ("cat", "cat", "dog", "red.panda"), strict=True)
    )


def test_kaggles_unlabelled_folder_is_noted_and_left(make):
    source = opened(make(named("train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg", "test1/2.jpg")))
    assert labels(source) == {"train/cat.0.jpg": "cat", "train/dog.0.jpg": "dog"}
    assert source.rejected == ()
    assert source.notes == ("images without labels in 'test1', ignored: 2",)


def test_labels_are_folder_names_verbatim(make):
    classes = ["кошка", "狗", "two words", "Ünï.cödé", "x" * 255]
    source = opened(make(named(*(f"{name}/1.jpg" for name in classes))))
    assert set(labels(source).values()) == set(classes)


def test_names_of_255_bytes(make):
    name = "猫" * 83 + "ab.jpg"
    assert len(name.encode()) == 255
    source = opened(make(named(f"cat/{name}", "dog/1.jpg")))
    assert source.images[0].read() == f"cat/{name}".encode()


def test_what_is_no_image_is_counted(make):
    junk = ("readme.txt", "Cat/Thumbs.db", "__MACOSX/Cat/._1.jpg", "Cat/.hidden.jpg", ".git/x.png")
    source = opened(make(named("Cat/1.jpg", "Dog/1.jpg", *junk)))
    assert set(labels(source)) == {"Cat/1.jpg", "Dog/1.jpg"}
    assert source.rejected == ()
    (note,) = source.notes
    assert note.startswith("files that are no images, ignored: 5")


def test_an_empty_folder_is_noted(make):
    source = opened(make({**named("cat/1.jpg", "dog/1.jpg"), "bird/": b""}))
    assert source.notes == ("folder 'bird' has no images, ignored",)


def test_formats_that_cannot_be_read_are_still_listed(make):
    source = opened(make(named("cat/1.HEIC", "dog/1.heif", "dog/2.jfif", "dog/3.jpe")))
    assert len(source.images) == 4


def test_strays_are_rejected_not_dropped(make):
    source = opened(make(named("cat/1.jpg", "dog/1.jpg", "stray.jpg", "cat/more/2.jpg")))
    assert set(labels(source)) == {"cat/1.jpg", "dog/1.jpg"}
    reason = "no label: beside or below the class folders, not in one"
    assert source.rejected == (Rejection("cat/more/2.jpg", reason), Rejection("stray.jpg", reason))


def test_a_stray_beside_a_wrapping_folder_is_rejected(make):
    source = opened(make(named("preview.jpg", "PetImages/Cat/1.jpg", "PetImages/Dog/1.jpg")))
    assert set(labels(source).values()) == {"Cat", "Dog"}
    assert [image.name for image in source.rejected] == ["preview.jpg"]


def test_names_without_label_or_number_are_rejected(make):
    good = [f"{label}.{number}.jpg" for label in ("cat", "dog") for number in range(4)]
    bad = ["0.jpg", "cat.jpg", "cat.x.jpg", "extra/cat.9.jpg"]
    source = opened(make(named(*good, *bad)))
    assert set(labels(source)) == set(good)
    reason = "no label: not among the images with names such as cat.0.jpg"
    assert source.rejected == tuple(Rejection(name, reason) for name in sorted(bad))


# Given splits


def splits(source: Source) -> dict[str, str]:
    return {image.name: image.split for image in source.images}


@pytest.mark.parametrize("wrapper", ["", "hymenoptera/"])
@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "VALID", "Testing"),
        ("training_set/training_set", "validation", "test_set/test_set"),
        ("seg_train/seg_train", "dev", "seg_test/seg_test"),
        ("train2017", "val2017", "eval"),
    ],
)
def test_given_splits_are_kept(make, wrapper, train, validation, test):
    found = {train: "train", validation: "validation", test: "test"}
    files = {
        f"{wrapper}{folder}/{label}/{split}.jpg": split for folder, split in found.items() for label in "ab"
    }
    source = opened(make(named(*files)))
    assert splits(source) == files
    assert labels(source) == {name: name.split("/")[-2] for name in files}
    assert list(source.given) == ["train", "validation", "test"]
    assert source.rejected == source.notes == ()


def test_given_splits_of_labelled_names(make):
    source = opened(make(named("train/cat.1.jpg", "train/dog.1.jpg", "val/cat.2.jpg")))
    assert splits(source) == {
        "train/cat.1.jpg": "train", "train/dog.1.jpg": "train", "val/cat.2.jpg": "validation"
    }  # fmt: skip
    assert labels(source) == {"train/cat.1.jpg": "cat", "train/dog.1.jpg": "dog", "val/cat.2.jpg": "cat"}


def test_given_splits_that_are_pooled(make):
    names = ("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/emu/2.jpg")
    source = open_source(str(make(named(*names))), Path("cache"), keep_splits=False)
    assert splits(source) == dict.fromkeys(sorted(names), "")
    assert set(labels(source).values()) == {"cat", "dog", "emu"}
    assert source.given == {}
    assert source.notes == ("the splits 'train', 'test' are pooled: data.splits=random",)


@pytest.mark.parametrize("folder", ["test", "test/test", "seg_pred/seg_pred", "test/images"])
def test_an_unlabelled_split_is_noted_and_left(make, folder):
    names = ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg")
    source = opened(make(named(*names, f"{folder}/7.jpg", f"{folder}/8.jpg")))
    assert set(splits(source)) == set(names)
    assert source.rejected == ()
    assert source.notes == (f"images without labels in {folder.split('/')[0]!r}, ignored: 2",)


def test_a_split_that_lacks_a_class_and_a_stray_beside_the_splits(make):
    source = opened(make(named("train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/3.jpg", "4.jpg")))
    assert splits(source) == {"train/a/1.jpg": "train", "train/b/1.jpg": "train", "val/a/2.jpg": "validation"}
    assert [stray.name for stray in source.rejected] == ["4.jpg", "val/3.jpg"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["val/a/1.jpg", "val/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "none to train on: name"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/A/1.jpg", "val/b/1.jpg"], "images of 'A', of which"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "dev/a/1.jpg"], "two folders of validation"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "more/b/1.jpg"], "beside them labelled"),
        (["train/train/a/1.jpg", "train/val/a/1.jpg", "test/a/1.jpg"], "'train' has splits of its own"),
        (["train/a/1.jpg", "test/a/1.jpg"], "only one class, 'a'"),
    ],
)  # fmt: skip
def test_given_splits_that_cannot_be_kept(make, names, told):
    assert told in refusal(make(named(*names)))


# What cannot be understood


def test_splits_without_labels(make):
    text = refusal(make(named("train/1.jpg", "test/2.jpg")))
    assert "named like splits ('test', 'train'), without labels" in text


def test_several_trees_side_by_side(make):
    text = refusal(make(named("2023/cat/1.jpg", "2023/dog/1.jpg", "2024/cat/1.jpg", "2024/dog/1.jpg")))
    assert "several trees of class folders: '2023', '2024'" in text
    assert "point data.source at one of them" in text


def test_names_without_labels(make):
    text = refusal(make(named("IMG_1.jpg", "IMG_2.jpg")))
    assert "carry no labels" in text
    assert "'IMG_1.jpg', 'IMG_2.jpg'" in text
    assert "one folder per class" in text


@pytest.mark.parametrize("names", [["cat/1.jpg", "cat/2.jpg"], ["cat.1.jpg", "cat.2.jpg"], ["a/cat/1.jpg"]])
def test_one_class_is_named(make, names):
    text = refusal(make(named(*names)))
    assert f"only one class, 'cat' ({len(names)} of {len(names)} images)" in text
    assert "at least two are needed" in text


def test_no_images(make):
    text = refusal(make(named("train.zip", "test1.zip", "sampleSubmission.csv", "notes.txt")))
    assert "has no images: found 4 other files ('notes.txt', 'sampleSubmission.csv', 'test1.zip'" in text
    assert ".jpg" in text
    assert "point data.source at" in text


def test_nothing_at_all(make):
    assert "has no images: found nothing" in refusal(make({}))


def test_a_missing_path_is_shown_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'nowhere'} does not exist")) as raised:
        open_source("nowhere", tmp_path / "cache")
    assert "'sample', 'dogs-vs-cats', a folder, a zip, or the http(s) URL" in str(raised.value)


def test_neither_a_folder_nor_a_file():
    with pytest.raises(UserError, match="/dev/null is neither a folder nor a file"):
        open_source("/dev/null", Path("cache"))


# Folders


def test_symbolic_links_are_followed_without_loops(tmp_path):
    write_tree(tmp_path / "elsewhere", named("1.jpg"))
    root = write_tree(tmp_path / "root", named("cat/1.jpg", "cat/2.jpg"))
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat")
    source = opened(root)
    assert labels(source) == {"cat/1.jpg": "cat", "cat/2.jpg": "cat", "dog/1.jpg": "dog"}
    assert source.rejected == ()


def test_a_link_to_nowhere_cannot_be_opened(tmp_path):
    root = write_tree(tmp_path / "root", named("cat/1.jpg", "dog/1.jpg"))
    (root / "cat" / "2.jpg").symlink_to("nowhere.jpg")
    image = opened(root).images[1]
    assert image.name == "cat/2.jpg"
    with pytest.raises(UnreadableImage, match="cannot be opened: No such file or directory"):
        image.read()


def test_pipes_named_like_images_are_not_opened(tmp_path):
    root = write_tree(tmp_path / "root", named("cat/1.jpg", "dog/1.jpg"))
    os.mkfifo(root / "cat" / "2.jpg")
    (root / "cat" / "3.jpg").symlink_to("2.jpg")
    assert set(labels(opened(root))) == {"cat/1.jpg", "dog/1.jpg"}


def test_names_that_are_not_utf8(tmp_path):
    root = write_tree(tmp_path / "root", named("dog/1.jpg"))
    folder = os.fsencode(root) + b"/caf\xe9"
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/\xff.jpg")).write_bytes(b"data")
    image = opened(root).images[0]
    assert (image.name, image.label) == ("caf\\xe9/\\xff.jpg", "caf\\xe9")
    assert image.read() == b"data"


def test_folders_that_are_too_deep_are_noted(tmp_path):
    source = opened(write_tree(tmp_path / "root", named("cat/1.jpg", "dog/1.jpg", "dog/a/b/c/d/2.jpg")))
    assert source.notes == ("folder 'dog/a/b/c/d' is too deep, ignored",)


def test_a_folder_that_cannot_be_read():
    with contextlib.ExitStack() as stack:
        root = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders let nobody but their owner in
        stack.callback(shutil.rmtree, root)
        root.chmod(0o755)
        write_tree(root, named("cat/1.jpg", "dog/1.jpg"))
        (root / "dog").chmod(0)
        if os.geteuid() == 0:  # root reads everything: be nobody for a moment
            stack.callback(os.seteuid, 0)
            os.seteuid(65534)
        text = refusal(root)
    assert f"{root}/dog cannot be read (Permission denied)" in text
    assert "allow it to be read" in text


def test_a_image_that_grows_too_large_is_not_read(tmp_path):
    root = write_tree(tmp_path / "root", named("cat/1.jpg", "dog/1.jpg"))
    with (root / "cat/1.jpg").open("wb") as file:
        file.truncate((256 << 20) + 1)  # sparse: takes no space
    with pytest.raises(UnreadableImage, match="too large: 268,435,457 bytes"):
        opened(root).images[0].read()


# Zips


def test_reading_from_many_threads(tmp_path):
    rng = np.random.default_rng(1)
    files = {f"{n % 2}/{n}.jpg": rng.bytes(int(rng.integers(1, 20_000))) for n in range(200)}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        source = opened(write_zip(tmp_path / f"{compression}.zip", files, compression))
        with ThreadPoolExecutor(8) as executor:
            for _ in range(3):
                read = executor.map(lambda image: image.read(), source.images)
                assert dict(zip((image.name for image in source.images), read, strict=True)) == files


def test_zips_with_something_before_them(tmp_path):
    whole = write_zip(tmp_path / "plain.zip", named("cat/1.jpg", "dog/1.jpg")).read_bytes()
    path = tmp_path / "self-extracting.zip"
    path.write_bytes(b"#!/bin/sh\n" * 100 + whole)
    assert [image.read() for image in opened(path).images] == [b"cat/1.jpg", b"dog/1.jpg"]


def test_a_file_that_is_no_zip(tmp_path):
    path = tmp_path / "images.tar.gz"
    path.write_bytes(b"\x1f\x8b" + bytes(100))
    text = refusal(path)
    assert f"{path} is no zip (102 bytes" in text
    assert "unpack other archives first" in text


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.zip"
    path.touch()
    assert "is no zip (0 bytes" in refusal(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_zip(tmp_path, share):
    path = write_zip(tmp_path / "images.zip", {f"{c}/{n}.jpg": bytes(99) for c in "ab" for n in range(50)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    text = refusal(path)
    assert "truncated or damaged zip" in text
    assert "copy or download it again" in text


@pytest.mark.parametrize(
    "name",
    ["../cat.jpg", "cat/../../1.jpg", "/cat/1.jpg", "..\\cat\\1.jpg", "C:\\cat\\1.jpg", "\\\\host\\1.jpg"],
)
def test_names_that_lead_outside(tmp_path, name):
    path = write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg", name))
    text = refusal(path)
    assert f"leads outside its folder, {name!r}" in text
    assert "refused whole" in text


def patched(path: Path, member: str, offset: int, value: bytes, local_offset: int | None = None) -> Path:
    """Overwrites a field of a member's entry in the zip's directory, and in its local header."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    entry = data.rindex(member.encode()) - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + offset : entry + offset + len(value)] = value
    if local_offset is not None:
        start = info.header_offset + local_offset
        data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def test_an_encrypted_zip(tmp_path):
    path = write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg"))
    text = refusal(patched(path, "dog/1.jpg", 8, b"\x01\x00", 6))
    assert "is encrypted ('dog/1.jpg')" in text
    assert "unzip it" in text


def test_a_member_that_declares_an_enormous_size_is_not_read(tmp_path):
    path = write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg"))
    source = opened(patched(path, "dog/1.jpg", 24, struct.pack("<I", 300 << 20)))
    with pytest.raises(UnreadableImage, match="too large: 314,572,800 bytes"):
        source.images[1].read()


def test_a_member_that_unpacks_to_more_than_it_declares(tmp_path):
    files = {"cat/1.jpg": bytes(50_000_000), "dog/1.jpg": b"x"}
    source = opened(patched(write_zip(tmp_path / "p.zip", files), "cat/1.jpg", 24, struct.pack("<I", 1000)))
    with pytest.raises(UnreadableImage, match="damaged: its checksum in the zip does not match"):
        source.images[0].read()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_does_not_cost_the_others(tmp_path, compression):
    files = {"cat/1.jpg": os.urandom(1000), "dog/1.jpg": b"good"}
    path = write_zip(tmp_path / "images.zip", files, compression)
    data = bytearray(path.read_bytes())
    data[500] ^= 0xFF
    path.write_bytes(data)
    cat, dog = opened(path).images
    with pytest.raises(UnreadableImage, match="damaged: "):
        cat.read()
    assert dog.read() == b"good"


def test_a_member_that_is_not_where_the_directory_says(tmp_path):
    path = write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg"))
    source = opened(patched(path, "dog/1.jpg", 42, struct.pack("<I", 7)))
    with pytest.raises(UnreadableImage, match="damaged: not where the zip's directory says"):
        source.images[1].read()


def test_a_compression_that_is_not_built_in(tmp_path):
    source = opened(write_zip(tmp_path / "p.zip", named("cat/1.jpg", "dog/1.jpg"), zipfile.ZIP_LZMA))
    with pytest.raises(UnreadableImage, match="compressed in the zip by lzma; only deflate is read"):
        source.images[0].read()


def test_of_duplicate_names_the_last_counts(tmp_path):
    path = write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("cat/1.jpg", b"later")
    source = opened(path)
    assert source.images[0].read() == b"later"
    assert source.notes == ("files of the zip that a later one of the same name hides, ignored: 1",)


def test_utf8_names_without_the_flag_that_says_so(tmp_path):
    # As macOS writes them.
    path = write_zip(tmp_path / "images.zip", named("собака/1.jpg", "cat/1.jpg"))
    source = opened(patched(path, "собака/1.jpg", 8, b"\0\0", 6))
    assert labels(source) == {"cat/1.jpg": "cat", "собака/1.jpg": "собака"}


def test_names_with_backslashes(tmp_path):
    # As some programs on Windows write them.
    source = opened(write_zip(tmp_path / "p.zip", named("Pets\\Cat\\1.jpg", "Pets\\Dog\\1.jpg")))
    assert labels(source) == {"Pets/Cat/1.jpg": "Cat", "Pets/Dog/1.jpg": "Dog"}


# Fingerprints


def test_a_folders_fingerprint_follows_names_sizes_and_times(tmp_path):
    root = write_tree(tmp_path / "root", named("cat/1.jpg", "dog/1.jpg", "readme.txt"))
    prints = [opened(root).fingerprint]
    (root / "readme.txt").write_text("other")
    assert opened(root).fingerprint == prints[0], "not an image"
    shutil.copytree(root, tmp_path / "copy")  # keeps times
    assert opened(tmp_path / "copy").fingerprint == prints[0]
    os.utime(root / "cat/1.jpg", ns=(1, 1))
    prints.append(opened(root).fingerprint)
    (root / "cat/1.jpg").write_bytes(b"longer than before")
    os.utime(root / "cat/1.jpg", ns=(1, 1))
    prints.append(opened(root).fingerprint)
    (root / "cat/1.jpg").rename(root / "cat/2.jpg")
    prints.append(opened(root).fingerprint)
    assert len(set(prints)) == 4


def test_a_zips_fingerprint_follows_its_contents(tmp_path):
    one = write_zip(tmp_path / "one.zip", {"cat/1.jpg": b"a", "dog/1.jpg": b"b"})
    order = write_zip(tmp_path / "two.zip", {"dog/1.jpg": b"b", "cat/1.jpg": b"a"}, zipfile.ZIP_STORED)
    other = write_zip(tmp_path / "three.zip", {"cat/1.jpg": b"a", "dog/1.jpg": b"c"})
    assert opened(one).fingerprint == opened(order).fingerprint != opened(other).fingerprint


# The sample, and URLs


def test_the_sample_draws_what_it_lists(tmp_path):
    source = open_source("sample", tmp_path)
    assert len(source.images) == len(sample.CLASSES) * sample.PICTURES_PER_CLASS
    assert [p.name for p in source.images] == sorted(p.name for p in source.images)
    image = next(image for image in source.images if image.name == "cat.3.png")
    assert image.label == "cat"
    assert np.array_equal(np.asarray(decode(image.read())), np.asarray(sample.draw("cat", 3)))
    assert source.fingerprint == open_source("sample", tmp_path).fingerprint
    assert "drawn" in source.description


@contextlib.contextmanager
def served(folder: Path):
    """A real HTTP server on loopback; yields the address of the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_zip_behind_a_url(tmp_path):
    write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg"))
    with served(tmp_path) as url:
        source = open_source(f"{url}/images.zip", tmp_path / "cache")
    assert [image.read() for image in source.images] == [b"cat/1.jpg", b"dog/1.jpg"]


def test_a_truncated_zip_behind_a_url_is_refused_and_not_kept(tmp_path):
    path = write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg"))
    path.write_bytes(path.read_bytes()[:-30])
    with served(tmp_path) as url, pytest.raises(UserError, match="truncated or damaged zip"):
        open_source(f"{url}/images.zip", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.zip"))


def test_a_url_with_another_hash_is_refused(tmp_path):
    write_zip(tmp_path / "images.zip", named("cat/1.jpg", "dog/1.jpg"))
    with served(tmp_path) as url, pytest.raises(UserError):
        open_source(f"{url}/images.zip", tmp_path / "cache", sha256="0" * 64)


def test_images_of_a_folder_are_read_as_they_are(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    root = write_tree(tmp_path / "root", {"cat/1.png": file.getvalue(), "dog/1.png": b""})
    assert [image.read() for image in opened(root).images] == [file.getvalue(), b""]
