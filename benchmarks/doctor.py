"""What `doctor` finds of planted faults: `python -m benchmarks.doctor [--photos ZIP] [-- ARGUMENTS]`.

Unpacks the photos, plants exact and near duplicates, swapped labels and broken files among them, runs the
command on the folder, and counts in its findings.csv what it found. What follows `--` goes to the command, as
`-- --model.name=transfer --model.backbone=….keras`. Nothing is asserted; tests/test_doctor.py does that, on
fewer photos. Some two minutes on two cores.
"""

import argparse
import csv
import io
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageEnhance

from pipeline.sources.tree import label_of_name

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "dogs-vs-cats-8k.zip"
EXACT, NEAR, SWAPPED, BROKEN_OF_A_KIND = 30, 60, 20, 2


@dataclass(frozen=True)
class Planted:
    """What was planted, by the files' names.

    Attributes:
        exact: original and copy.
        near: original, copy, and what was done to it.
        swapped: images under the other label.
        broken: files that cannot be read, with the start of the reason.
    """

    exact: list[tuple[str, str]]
    near: list[tuple[str, str, str]]
    swapped: list[str]
    broken: dict[str, str]


def plant(archive: Path, folder: Path, count: int | None = None, seed: int = 7) -> Planted:
    """Writes photos of a zip into a folder, with faults among them.

    Args:
        archive: of images named as cat.0.jpg, of two labels.
        folder: an empty one.
        count: so many of them, evenly over the labels; None: all.
        seed: draws which images are planted.
    """
    generator = random.Random(seed)
    photos = _photos(archive, count)
    classes = sorted({label_of_name(name) for name in photos})
    drawn = generator.sample(sorted(photos), EXACT + NEAR)
    others = sorted(photos.keys() - set(drawn))
    exact = [_copy(photos, name, 90_000 + number, number % 2) for number, name in enumerate(drawn[:EXACT])]
    near = [_near_copy(photos, name, 80_000 + number, generator) for number, name in enumerate(drawn[EXACT:])]
    swapped = []
    for one, other in (classes, classes[::-1]):
        own = [name for name in others if label_of_name(name) == one]
        for name in generator.sample(own, SWAPPED // 2):
            swapped.append(f"{other}.{70_000 + len(swapped)}.jpg")
            photos[swapped[-1]] = photos.pop(name)
    broken = {}
    whole = photos[drawn[0]]
    for reason, content in _broken(whole).items():
        for _ in range(BROKEN_OF_A_KIND):
            broken[name := f"{classes[len(broken) % 2]}.{60_000 + len(broken)}.jpg"] = reason
            photos[name] = content
    for name, content in photos.items():
        (folder / name).write_bytes(content)
    return Planted(exact, near, swapped, broken)


def _photos(archive: Path, count: int | None) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        by_label = defaultdict(list)
        for name in opened.namelist():
            if label := label_of_name(name):
                by_label[label].append(name)
        each = None if count is None else count // len(by_label)
        return {Path(name).name: opened.read(name) for names in by_label.values() for name in names[:each]}


def _copy(photos: dict[str, bytes], name: str, number: int, other_format: int) -> tuple[str, str]:
    """Plants the same pixels, as the same bytes or as a PNG."""
    copy = f"{label_of_name(name)}.{number}.{'png' if other_format else 'jpg'}"
    photos[copy] = _encoded(_opened(photos[name]), "PNG") if other_format else photos[name]
    return name, copy


def _near_copy(
    photos: dict[str, bytes], name: str, number: int, generator: random.Random
) -> tuple[str, str, str]:
    """Plants an image that was resized, saved again, made lighter or darker, or cropped."""
    change = list(CHANGES)[number % len(CHANGES)]
    copy = f"{label_of_name(name)}.{number}.jpg"
    changed = CHANGES[change](_opened(photos[name]), generator)
    quality = generator.randint(40, 70) if change == "saved again" else 90
    photos[copy] = _encoded(changed, "JPEG", quality=quality)
    return name, copy, change


def _resized(image: Image.Image, generator: random.Random) -> Image.Image:
    part = generator.uniform(0.5, 0.9)
    return image.resize((round(part * image.width), round(part * image.height)), Image.Resampling.LANCZOS)


def _lit(image: Image.Image, generator: random.Random) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(generator.choice((0.9, 1.1)))


def _cropped(image: Image.Image, generator: random.Random) -> Image.Image:
    """Without 2 to 5 % of its width and height, from anywhere."""
    part = generator.uniform(0.02, 0.05)
    left, top = generator.random() * part * image.width, generator.random() * part * image.height
    box = (left, top, left + (1 - part) * image.width, top + (1 - part) * image.height)
    return image.crop(tuple(map(round, box)))


CHANGES: Mapping[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "resized": _resized,
    "saved again": lambda image, generator: image,
    "lit": _lit,
    "cropped": _cropped,
}


def _broken(whole: bytes) -> dict[str, bytes]:
    """Five files that cannot be read, by the start of the reason that `prepare` gives."""
    return {
        "empty file": b"",
        "truncated": whole[: len(whole) // 2],
        "not an image": b"<html><body>404 Not Found</body></html>",
        "damaged": whole[:4] + bytes(200),
        "too large": b"P6 20000 20000 255\n",  # 400 million pixels, it says
    }


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@dataclass(frozen=True)
class Score:
    """What became of one kind of planted faults: how many there were, were found, and were listed in all."""

    planted: int
    found: int
    listed: int


def scores(planted: Planted, rows: Sequence[Mapping[str, str]]) -> dict[str, Score]:
    """What a findings.csv has of what was planted, by kind."""
    pairs = {
        kind: {frozenset((row["image"], row["other"])): row for row in rows if row["kind"] == kind}
        for kind in ("exact_duplicate", "near_duplicate")
    }
    across = {pair for pair, row in pairs["near_duplicate"].items() if row["split"] != row["other_split"]}
    near = {frozenset(names) for *names, _ in planted.near}
    exact = {frozenset(names) for names in planted.exact}
    doubted = [row["image"] for row in rows if row["kind"] == "suspected_label"]
    left_out = {row["image"]: row["detail"] for row in rows if row["kind"] == "left_out"}
    broken = sum(left_out.get(name, "").startswith(reason) for name, reason in planted.broken.items())
    swapped = set(planted.swapped)
    return {
        "exact duplicates": Score(
            len(exact), len(exact & pairs["exact_duplicate"].keys()), len(pairs["exact_duplicate"])
        ),
        "near duplicates": Score(
            len(near), len(near & pairs["near_duplicate"].keys()), len(pairs["near_duplicate"])
        ),
        "of them across splits": Score(len(near & across), len(near & across), len(across)),
        "swapped labels": Score(len(swapped), len(swapped & set(doubted)), len(doubted)),
        "in the first 40": Score(len(swapped), len(swapped & set(doubted[:40])), len(doubted[:40])),
        "broken files": Score(len(planted.broken), broken, len(left_out)),
    }


def findings(file: Path) -> list[dict[str, str]]:
    """The rows of a findings.csv."""
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def main(arguments: Sequence[str] | None = None) -> None:
    """Plants, runs the command, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a zip of photos such as cat.0.jpg")
    parser.add_argument("--count", type=int, help="so many of them; all where it is left out")
    parser.add_argument("arguments", nargs="*", help="of the command, after --")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        project, photos = Path(scratch, "project"), Path(scratch, "photos")
        project.mkdir()
        photos.mkdir()
        planted = plant(options.photos, photos, options.count)
        (project / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "pipeline.steps.doctor", f"--data.source={photos}", *options.arguments],
            cwd=project,
            env=kept | {"PYTHONPATH": str(ROOT)},
            check=True,
        )
        taken = time.perf_counter() - start
        found = scores(planted, findings(project / "doctor" / "findings.csv"))
        size = (project / "doctor" / "doctor.html").stat().st_size
        print(f"\n{'':24}{'planted':>8}{'found':>8}{'listed':>8}")
        for name, score in found.items():
            print(f"{name:24}{score.planted:8}{score.found:8}{score.listed:8}")
        print(f"\n{taken:.0f} s, a page of {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
