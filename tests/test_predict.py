"""Images without labels, classified by the real command."""

import csv
import io
import json
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Project, assert_user_error
from mlflow import MlflowClient
from PIL import Image

from pipeline.dataset import decode as decoding
from pipeline.runtime.errors import UserError
from pipeline.sources import sample, source
from pipeline.sources.images import decode, resize

COLUMNS = ["name", "label", "probability", "cat", "dog", "error"]
NAMES = [
    "cat 0.png",
    "deep/er/and/deep/er/still/cat 1.jpg",
    "deep/er/dog 0.JPG",
    "broken.jpg",
    "naïve, “dog” 1.png",
]


def put(folder: Path) -> Path:
    """A folder of images without labels at many depths, one of them broken, and other files."""
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.draw("dog" if "dog" in name else "cat", number).save(path)
    (folder / "broken.jpg").write_bytes((folder / "cat 0.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def zipped(folder: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return file


@pytest.fixture(scope="module")
def registered(with_champion: Project) -> Project:
    """A project with a champion, and images without labels."""
    put(with_champion.path / "images")
    return with_champion


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS
    return rows


@pytest.mark.slow
def test_folder_is_predicted_by_the_champion(registered):
    result = registered.run("predict", "--predict.source=images", "--predict.contact_sheet=3")
    assert (result.returncode, result.stderr) == (0, "")
    rows = read(registered.path / "predictions/predictions.csv")
    assert [row["name"] for row in rows] == sorted(NAMES)
    (broken,) = (row for row in rows if row["name"] == "broken.jpg")
    assert "truncated" in broken["error"]
    assert [broken[key] for key in COLUMNS[1:-1]] == [""] * 4
    mlflow.set_tracking_uri(registered.uri)
    model = mlflow.pyfunc.load_model("models:/dogs-vs-cats@champion")
    mlflow.set_tracking_uri(None)
    good = [row for row in rows if row["name"] != "broken.jpg"]
    encoded = [(registered.path / "images" / row["name"]).read_bytes() for row in good]
    expected = model.predict(pd.DataFrame({"image": encoded}))
    for row, (_, answer) in zip(good, expected.iterrows(), strict=True):
        assert row["label"] == answer["label"]
        assert [float(row["cat"]), float(row["dog"])] == pytest.approx(
            [answer["cat"], answer["dog"]], abs=1e-6
        )
        assert float(row["probability"]) == max(float(row["cat"]), float(row["dog"]))
        assert row["error"] == ""
    counts = {label: sum(row["label"] == label for row in rows) for label in ("cat", "dog")}
    assert f"cat {counts['cat']}, dog {counts['dog']}, unreadable 1" in result.stdout

    (run,) = MlflowClient(registered.uri).search_runs(["0"], "tags.step = 'predict'", max_results=1)
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert run.data.tags["model"] == "models:/dogs-vs-cats/1"
    assert run.data.metrics == {"images/total": 5, "images/rejected": 1}
    assert {path.name for path in artifacts.iterdir()} == {"predictions.csv", "contact_sheet.png"}
    assert (artifacts / "predictions.csv").read_bytes() == (
        registered.path / "predictions/predictions.csv"
    ).read_bytes()
    with Image.open(artifacts / "contact_sheet.png") as sheet:
        assert sheet.width > sheet.height


@pytest.mark.slow
def test_zip_with_a_model_of_ones_own_choice_into_a_csv(registered):
    zipped(registered.path / "images", registered.path / "images.zip")
    run = MlflowClient(registered.uri).search_runs(["0"], "tags.step = 'train'")[0]
    (model,) = run.outputs.model_outputs
    options = ("--predict.source=images.zip", f"--predict.model=models:/{model.model_id}")
    result = registered.run("predict", *options, "--predict.output=out/mine.csv", "--predict.contact_sheet=0")
    assert result.returncode == 0, result.stderr
    assert [row["name"] for row in read(registered.path / "out/mine.csv")] == sorted(NAMES)
    assert [path.name for path in (registered.path / "out").iterdir()] == ["mine.csv"]


@pytest.mark.slow
def test_nothing_readable_fails_and_says_why(registered):
    result = registered.run("predict", "--predict.source=images/broken.jpg", "--predict.output=none")
    assert_user_error(result, "none of the 1 images can be read", "none/predictions.csv")
    (row,) = read(registered.path / "none/predictions.csv")
    assert "truncated" in row["error"]


@pytest.mark.slow
def test_model_that_is_not_there(registered):
    result = registered.run("predict", "--predict.source=images", "--predict.model=models:/nobody@champion")
    assert_user_error(result, "predict.model", "models:/nobody@champion")


def test_without_a_champion(project):
    put(project.path / "images")
    result = project.run("predict", "--predict.source=images")
    assert_user_error(result, "models:/dogs-vs-cats@champion", "-e register", "predict.model")


def test_source_has_to_be_set(project):
    assert_user_error(project.run("predict"), "predict.source is not set", "a folder")


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"predict\.source: .* has no images"):
        source.list_images(str(tmp_path), "predict.source")


def test_missing_source_and_broken_zip_name_the_parameter(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no directory")
    for name, words in (("nowhere", "does not exist"), ("a.zip", "truncated or damaged zip")):
        with pytest.raises(UserError, match=words) as caught:
            source.list_images(str(tmp_path / name), "predict.source")
        assert "data.source" not in str(caught.value)


def test_files_as_a_list_keep_their_order(tmp_path):
    folder = put(tmp_path / "images")
    files = [str(folder / name) for name in (NAMES[4], NAMES[0])]
    assert [image.name for image in source.list_images(json.dumps(files), "predict.source")] == files
    with pytest.raises(UserError, match="nowhere does not exist"):
        source.list_images(json.dumps([*files, "nowhere"]), "predict.source")


def test_batches_hold_the_pixels_of_prepare_in_order():
    read_from = []

    def image(number: int) -> source.SourceImage:
        def read() -> bytes:
            read_from.append(number)
            file = io.BytesIO()
            sample.draw("cat", number).save(file, "PNG")
            return file.getvalue() if number != 3 else b""

        return source.SourceImage(str(number), "", read)

    images = [image(number) for number in range(8)]
    batches = decoding.read_images(images, 16, 2)
    arrays, decoded = next(batches)
    assert decoded.kept == [0, 1]
    assert max(read_from) <= 3, "no more than the next batch is read ahead"
    expected = [resize(decode(images[number].read()), 16) for number in (0, 1)]
    np.testing.assert_array_equal(arrays, expected)
    rest = list(batches)
    assert [decoded.kept for _, decoded in rest] == [[2], [4, 5], [6, 7]]
    assert [len(arrays) for arrays, _ in rest] == [1, 2, 2]
    assert [(one.name, one.reason) for one in rest[0][1].rejected] == [("3", "empty file")]
