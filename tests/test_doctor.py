"""What the doctor finds: hand-computed answers for its parts, faults planted among real photos."""

import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import imagehash
import numpy as np
import pytest
from conftest import ROOT, Project, assert_user_error
from mlflow import MlflowClient
from PIL import Image, ImageEnhance, ImageOps

from benchmarks import doctor as planting
from pipeline.config.command_line import load
from pipeline.dataset.prepare import prepare
from pipeline.dataset.storage import Prepared
from pipeline.doctor import checks, class_balance, cost, duplicates, findings, image_stats, label_noise, page
from pipeline.doctor.duplicates import Pair
from pipeline.sources.layout import Rejection
from pipeline.sources.source import SourceImage
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION

pytestmark = pytest.mark.slow


def blots(count: int, seed: int = 0) -> list[Image.Image]:
    """Images of soft blots of colour, each another."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return [Image.fromarray(one).resize((96, 96), Image.Resampling.BICUBIC) for one in noise]


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)) for image in images])


def small_set(splits: list[str], classes: list[str], images: np.ndarray | None = None) -> Prepared:
    """A prepared set of images 0.png, 1.png, …, as it comes from the disk."""
    names = sorted(set(classes))
    count = len(splits)
    return Prepared(
        path=Path("nowhere"),
        classes=tuple(names),
        image_size=64,
        digest="d",
        images=np.zeros((count, 64, 64, 3), np.uint8) if images is None else images,
        labels=np.array([names.index(name) for name in classes]),
        names=tuple(f"{number}.png" for number in range(count)),
        splits=np.array(splits),
        image_digests=np.repeat(np.arange(count, dtype="u8"), 2).reshape(count, 2),
        rejected=(),
    )


@pytest.mark.parametrize("every_pair", [True, False])
def test_near_duplicates_are_found_and_distinct_images_are_not(monkeypatch, every_pair):
    monkeypatch.setattr(duplicates, "EXACT", 204 if every_pair else 203)
    images = blots(200)
    smaller = images[3].resize((48, 48)).resize((96, 96))
    lighter = ImageEnhance.Brightness(images[50]).enhance(1.1)
    cropped = images[120].crop((2, 1, 95, 94))
    images += [smaller, lighter, cropped, ImageOps.mirror(images[7])]
    found, complete = duplicates.near(pixels(images), np.arange(204))
    assert complete == every_pair
    assert [(pair.first, pair.second, pair.mirrored) for pair in found] == [
        (3, 200, False),
        (7, 203, True),
        (50, 201, False),
        (120, 202, False),
    ]
    assert all(pair.correlation >= 0.95 and pair.distance <= duplicates.MAX_DISTANCE for pair in found)


def test_hashes_are_image_hashs():
    images = pixels(blots(30))
    hashes, mirrored, thumbnails = duplicates._fingerprints(images, np.arange(30))
    for image, own, other, thumbnail in zip(images, hashes, mirrored, thumbnails, strict=True):
        gray = Image.fromarray(image).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
        for got, seen in ((own, gray), (other, ImageOps.mirror(gray))):
            expected = np.packbits(imagehash.phash(seen).hash)
            assert np.array([got]).view(np.uint8).tolist() == expected.tolist()
        assert thumbnail.mean() == pytest.approx(image.mean(), abs=2)


def test_most_near_hashes_are_found_without_comparing_all():
    """Of 20,000 random hashes 2,000 are there again, with up to 10 bits changed."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 20_000, np.uint64)
    copies, planted = hashes[:2000].copy(), set()
    for number in range(2000):
        for bit in rng.choice(64, number % 11, replace=False):
            copies[number] ^= np.uint64(1) << np.uint64(bit)
        planted.add((number, 20_000 + number))
    hashes = np.concatenate([hashes, copies])

    def pairs(found) -> list[tuple[int, int]]:
        return [
            pair for left, right, bits in found for pair in zip(left.tolist(), right.tolist(), strict=True)
        ]

    found = pairs(duplicates._sampled_near(hashes, hashes))
    assert len(found) == len(set(found))
    assert all(one < other for one, other in found)
    assert len(planted & set(found)) >= 0.99 * 2000
    distances = [int(hashes[one] ^ hashes[other]).bit_count() for one, other in found]
    assert max(distances) <= duplicates.MAX_DISTANCE_SAMPLED
    # of others, which mirror images are: the later ones alone
    few = hashes[:2], np.array([7, hashes[0]], np.uint64)
    assert pairs(duplicates._sampled_near(*few)) == [(0, 1)]
    assert pairs(duplicates._sampled_near(*(side[::-1] for side in few))) == []


def test_only_the_rows_that_are_asked_for_are_compared():
    images = pixels(blots(3) * 2)
    rows = np.array([0, 1, 2, 4])
    assert [(pair.first, pair.second) for pair in duplicates.near(images, rows)[0]] == [(1, 4)]
    assert duplicates.near(images, rows[:3]) == ([], True)


def test_images_of_one_colour_resemble_nothing():
    images = np.stack([np.full((64, 64, 3), value, np.uint8) for value in (0, 10, 255)])
    assert duplicates.near(images, np.arange(3)) == ([], True)


def test_pairs_that_never_end_are_cut_off(monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 100)
    found, complete = duplicates.near(pixels(blots(1) * 60), np.arange(60))
    assert len(found) == 100
    assert not complete


def test_pairs_link_to_groups():
    assert duplicates.groups(7, [(5, 1), (1, 3), (6, 4)]).tolist() == [0, 1, 2, 1, 4, 1, 4]


def test_folds_are_even_and_keep_groups_together():
    given = np.array([0] * 60 + [1] * 30)
    groups = np.arange(90)
    groups[[10, 20]] = 5
    groups[70] = 65
    folds = label_noise.folds(given, groups, seed=1)
    assert folds[5] == folds[10] == folds[20]
    assert folds[65] == folds[70]
    for label in (0, 1):
        counts = np.bincount(folds[given == label], minlength=label_noise.FOLDS)
        assert counts.max() - counts.min() <= 4
    assert (folds != label_noise.folds(given, groups, seed=2)).any()


def test_suspects_are_as_sure_to_be_of_another_class_as_its_own_images():
    given = np.array([0, 0, 0, 1, 1, 1])
    of_one = np.array([0.1, 0.95, 0.85, 0.8, 0.9, 0.25])  # the probability of class 1
    probabilities = np.stack([1 - of_one, of_one], axis=1)
    # class 1's own images have 0.65 on average, class 0's 0.3667: 1 and 2 are above the one, 5 above the
    # other
    assert label_noise.suspects(given, probabilities).tolist() == [1, 2, 5]
    probabilities[2] = [0.4, 0.6]  # more likely of class 1, but less than its own
    assert label_noise.suspects(given, probabilities).tolist() == [1, 5]


def test_only_headers_are_read(tmp_path):
    def encoded(mode: str, size: tuple[int, int], kind: str) -> bytes:
        file = io.BytesIO()
        Image.new(mode, size).save(file, kind)
        return file.getvalue()

    files = [
        encoded("RGB", (200, 100), "JPEG"),
        encoded("L", (40, 300), "PNG")[:60],  # no pixels
        encoded("CMYK", (64, 64), "JPEG"),
        b"gone",
    ]
    seen = image_stats.read_headers(
        [SourceImage(f"{n}", "a", lambda data=data: data) for n, data in enumerate(files)]
    )
    assert seen.formats == {"JPEG": 2, "PNG": 1}
    assert seen.modes == {"RGB": 1, "L": 1, "CMYK": 1}
    assert seen.sizes.tolist() == [[200, 100], [40, 300], [64, 64], [0, 0]]
    assert seen.upsampled(64).tolist() == [1]
    assert seen.size_range() == "from 64 x 64 to 200 x 100 px, median 40 x 300 px"


def test_console_warns_of_imbalanced_and_small_classes():
    even = small_set([TRAIN] * 20 + [VALIDATION] * 20, ["cat", "dog"] * 20)
    assert len(class_balance.lines(even)) == 1
    uneven = small_set([TRAIN] * 8 + [VALIDATION] * 12, ["dog"] * 2 + ["cat"] * 6 + ["cat"] * 11 + ["dog"])
    first, second, _ = class_balance.lines(uneven)
    assert (
        "cat has 5.7 times as many images as dog; always predicting cat scores an accuracy of 0.85" in first
    )
    assert "train.class_weight=balanced" in first
    assert second.endswith(": dog 1")


def test_pairs_are_grouped_by_labels_then_by_splits():
    prepared = small_set([TRAIN, TEST, TRAIN, TRAIN, TEST, VALIDATION], ["a", "a", "a", "b", "b", "b"])
    pairs = [
        Pair(0, 1, 4, 0.9, False),
        Pair(0, 2, 0, 0.99, True),
        Pair(2, 3, 1, 0.95, False),
        Pair(4, 5, 1, 0.97, False),
    ]
    conflicting, leaks, within = checks.duplicates(prepared, pairs, complete=True)
    assert [(row.image, row.other) for row in conflicting.rows] == [("2.png", "3.png")]
    assert [(row.image, row.other) for row in leaks.rows] == [("0.png", "1.png"), ("4.png", "5.png")]
    assert "1 test image has a near duplicate in the training split" in leaks.meaning
    assert [(row.image, row.other) for row in within.rows] == [("0.png", "2.png")]
    assert within.rows[0].detail == "correlation 0.990, 0 of 64 bits differ, mirrored"
    assert (conflicting.is_warning, leaks.is_warning, within.is_warning) == (True, True, False)


def test_cost_adds_up(tmp_path):
    (tmp_path / "images.npy").write_bytes(bytes(5000))
    prepared = replace(small_set([TRAIN] * 6 + [VALIDATION] * 4, ["a", "b"] * 5), path=tmp_path)
    measured = cost.Measured(
        features_seconds=100.0,
        epoch_seconds=2.0,
        fine_tuning_seconds=8.0,
        memory_bytes=3 << 30,
        weights_bytes=1000,
        features_bytes=400,
    )
    arguments = ["--train.epochs=5", "--model.name=transfer", "--model.fine_tune_epochs=3"]
    params = load(arguments, ROOT / "params.yaml")
    alone = cost.Resources(workers=1, worker_bytes=2 << 30, memory_bytes=16 << 30, disk_bytes=10**9)
    one = cost.estimate(params, prepared, measured, cells=10, resources=alone, features_left=1.0)
    # 10 s until it starts, the features, 10 cells of 5 * 2 + 3 * 8 s and 1.7 s beside
    assert one.seconds == pytest.approx(10 + 100 + 340 + 17)
    assert one.memory_bytes == 3 << 30
    # a cell's weights, its report, and 4 predictions; a checkpoint is three times the weights
    assert one.disk_bytes == 10 * (1000 + 300_000 + 240) + 3000 + 400
    assert one.prepared_bytes == 5000
    pair = replace(alone, workers=2, worker_bytes=4 << 30)
    two = cost.estimate(params, prepared, measured, cells=10, resources=pair, features_left=0.0)
    assert two.seconds == pytest.approx(10 + 340 / 1.2 + 8.5)
    assert two.memory_bytes == 8 << 30
    assert dict(two.texts())["time"] == "about 5 min (10 cells, 2 at a time)"


class _Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_page_shows_names_as_they_are_and_bounds_its_images():
    odd = '<script>alert("1")</script>&.png'
    file = io.BytesIO()
    blots(1)[0].save(file, "PNG")
    prepared = small_set([TRAIN, TEST] * 30, ["<b>", "dog"] * 30)
    pairs = [Pair(number, number + 2, 0, 0.99, False) for number in range(58)]
    found = (
        *checks.left_out([Rejection(odd, "damaged: <i>")], {}),
        *checks.duplicates(prepared, pairs, complete=False),
    )
    examination = page.Examination("there", prepared, None, found, None, (), ())
    read = _Page(
        page.html(
            examination, {name: SourceImage(name, "", file.getvalue) for name in prepared.names}
        ).decode()
    )
    assert odd in read.text
    assert "damaged: <i>" in read.text
    assert not {"b", "i"} & {tag for tag, _ in read.tags}
    images = [attrs["src"] for tag, attrs in read.tags if tag == "img"]
    assert len(images) == page.MAX_IMAGES
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert "Ready to sweep, with 1 warning" in read.text
    assert "At least 58 near duplicates within a split" in read.text
    rows = findings.table(found).decode().splitlines()
    assert rows[0] == "kind,image,label,other,other_label,split,other_split,detail"
    assert len(rows) == 1 + 1 + 58


def test_page_of_a_thousand_classes_is_small_and_shows_the_ends():
    classes = [f"class {number:03}" for number in range(1000) for _ in range(4 if number == 7 else 2)]
    prepared = small_set([TRAIN, VALIDATION] * 1001, classes)
    found = tuple(checks.classes(prepared))
    examination = page.Examination("there", prepared, None, found, None, (), ())
    content = page.html(examination, {})
    assert len(content) < 50_000
    read = _Page(content.decode())
    assert "The 20 largest and the 20 smallest classes; 960 more lie between them." in read.text
    assert "class 500" not in read.text
    assert all(len(line) < 300 for line in [*page.console(examination), *class_balance.lines(prepared)])
    assert found[0].rows[-1].label == "class 007"  # the smallest first, in findings.csv, too
    assert len(findings.table(found).splitlines()) == 1 + 1000 + 1000


def folder_of(path: Path, counts: dict[str, int]) -> Path:
    for label, count in counts.items():
        (path / label).mkdir(parents=True)
        for number, image in enumerate(blots(count, seed=len(label))):
            image.save(path / label / f"{number}.png")
    return path


def test_every_reason_why_the_sweep_would_fail_is_reported(project: Project):
    photos = folder_of(project.path / "photos", {"cat": 20, "horse": 60})
    for number in range(10):
        (photos / "cat" / f"bad{number}.jpg").write_bytes(b"")
    arguments = (f"--data.source={photos}", "--model.name=transfer", "--model.backbone=nowhere.keras")
    result = project.run("doctor", *arguments)
    assert_user_error(result, "the sweep would fail", "nowhere.keras", "data.max_rejected")
    assert "10 images cannot be used" in result.stdout
    rows = planting.findings(project.path / "doctor" / "findings.csv")
    assert sum(row["kind"] == "left_out" and row["detail"] == "empty file" for row in rows) == 10
    assert {row["label"]: row["detail"] for row in rows if row["kind"] == "imbalance"} == {
        "cat": "20 images",
        "horse": "60 images",
    }
    assert "The sweep would fail" in (project.path / "doctor" / "doctor.html").read_text()
    (run,) = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'doctor'")
    assert run.info.status == "FAILED"
    assert run.data.metrics["findings/left_out"] == 10
    # the sweep itself warns of what needs no model
    plan = ("--sweep.dry_run=true", "--train.precision=float32", "--data.max_rejected=0.2")
    result = project.run("sweep", arguments[0], *plan)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("horse has 3.0 times as many images as cat") == 1
    assert "mlflow run . -e doctor" in result.stdout


def test_baseline_without_a_backbone_predicts_every_image(tmp_path):
    from pipeline import models
    from pipeline.doctor import baseline
    from pipeline.training.batches import LabelledImages

    params = load(
        ["--data.limit=60", "--data.image_size=32", f"--data.cache={tmp_path}"], ROOT / "params.yaml"
    )
    prepared = prepare(params.data, params.seed)
    folds = label_noise.folds(prepared.labels, np.arange(60), seed=1)
    network = models.build(params.model, 32, 2, seed=1)
    splits = [LabelledImages.of(prepared, split) for split in (TRAIN, VALIDATION, TEST)]
    answers = baseline.predict_out_of_fold(network, params, prepared, splits, folds)
    assert answers.model == "simple_cnn at 32 px"
    assert answers.probabilities.shape == (60, 2)
    assert answers.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)  # every image was predicted


def test_photos_have_hardly_any_false_near_duplicates(shared: Path, tmp_path: Path):
    prepared = prepare(planting_section(shared, tmp_path), seed=42)
    found, _ = duplicates.near(prepared.images, np.arange(len(prepared.names)))
    involved = {row for pair in found for row in (pair.first, pair.second)}
    assert len(involved) <= 0.01 * len(prepared.names)


def planting_section(shared: Path, cache: Path):
    from benchmarks.prepare import section

    options = section(shared / "data" / "dogs-vs-cats-8k.zip", str(cache))
    options.limit = 3000
    return options


@pytest.mark.slow
def test_planted_faults_are_found(shared: Path, project: Project):
    photos = project.path / "photos"
    photos.mkdir()
    planted = planting.plant(shared / "data" / "dogs-vs-cats-8k.zip", photos, count=800)
    result = project.run(
        "doctor",
        f"--data.source={photos}",
        "--data.image_size=96",
        "--model.name=transfer",
        f"--model.backbone={shared / 'models' / 'efficientnet_lite0.keras'}",
        '--sweep.grid={"learning_rate":[0.01,0.001]}',
    )
    assert result.returncode == 0, result.stderr
    found = planting.scores(planted, planting.findings(project.path / "doctor" / "findings.csv"))
    exact, near, across = (
        found[name] for name in ("exact duplicates", "near duplicates", "of them across splits")
    )
    assert exact.found == exact.planted == exact.listed == 30
    assert near.found >= 0.9 * near.planted
    assert near.listed - near.found <= 8  # 1 % of 800 photos
    assert across.found >= 25
    assert found["in the first 40"].found >= 10
    assert found["broken files"].found == found["broken files"].listed == 10
    assert "Ready to sweep, with" in result.stdout
    assert (project.path / "doctor" / "doctor.html").stat().st_size < 3_000_000
    (run,) = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'doctor'")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["findings/exact_duplicates"] == 30
    logged = Path(run.info.artifact_uri.removeprefix("file://"), "doctor")
    assert {path.name for path in logged.iterdir()} == {"doctor.html", "findings.csv"}
