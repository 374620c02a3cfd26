"""What users get wrong, through real commands: a clear last line, status 1, nothing half-written."""

import socket
import zipfile
from pathlib import Path

import pytest
from conftest import Project, assert_user_error
from mlflow import MlflowClient
from PIL import Image

pytestmark = pytest.mark.slow


def images(folder: Path, **classes: int) -> Path:
    """A folder with one folder per class and so many small images in each, no two alike."""
    for number, (label, count) in enumerate(classes.items()):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (20, 20), (80 * number, index, 255 - index)).save(
                folder / label / f"{index}.png"
            )
    return folder


def contents(project: Project) -> set[str]:
    return {path.name for path in project.path.iterdir()}


@pytest.mark.parametrize(
    "step", ["main", "prepare", "train", "evaluate", "sweep", "register", "explain", "predict"]
)
def test_mistyped_key_stops_before_anything_is_created(project, step):
    before = contents(project)
    result = project.run(step, "--train.epoch=3")
    assert_user_error(result, "train.epoch", "unknown key", "train.epochs?")
    assert contents(project) == before


def test_help_needs_no_store(project):
    before = contents(project)
    result = project.run("sweep", "--help")
    assert result.returncode == 0
    assert "--train.epochs" in result.stdout
    assert contents(project) == before


def test_missing_path(project):
    result = project.run("prepare", "--data.source=nowhere")
    assert_user_error(result, str(project.path / "nowhere"))
    assert not list(project.path.glob("data/prepared/*"))


@pytest.mark.parametrize("step", ["prepare", "train", "sweep"])
def test_empty_folder(project, step):
    (project.path / "photos").mkdir()
    assert_user_error(project.run(step, "--data.source=photos"), "photos", "no images")


def test_one_class(project):
    images(project.path / "photos", cat=5)
    assert_user_error(project.run("prepare", "--data.source=photos"), "one class", "'cat'", "at least two")


def test_class_too_small_to_split(project):
    images(project.path / "photos", cat=9, dog=2)
    assert_user_error(project.run("prepare", "--data.source=photos"), "'dog'", "2")


def test_main_without_a_test_split_stops_before_training(project):
    images(project.path / "photos", cat=9, dog=9)
    result = project.run("main", "--data.source=photos", "--data.test=0")
    assert_user_error(result, "test split", "data.test", "-e train")
    steps = {run.data.tags["step"] for run in MlflowClient(project.uri).search_runs(["0"])}
    assert steps == {"main", "prepare"}


def test_no_zip(project):
    (project.path / "photos.zip").write_text("no zip at all")
    assert_user_error(project.run("prepare", "--data.source=photos.zip"), "photos.zip")


def test_zip_that_would_write_outside_its_folder(project):
    with zipfile.ZipFile(project.path / "photos.zip", "w") as archive:
        archive.writestr("../evil.png", b"")
        archive.writestr("cat/1.png", b"")
    assert_user_error(project.run("prepare", "--data.source=photos.zip"), "../evil.png")
    assert not (project.path.parent / "evil.png").exists()


def test_too_many_unreadable_files(project):
    images(project.path / "photos", cat=9, dog=9)
    for number in range(2):
        (project.path / "photos" / "cat" / f"broken{number}.jpg").write_bytes(b"no image")
    result = project.run("prepare", "--data.source=photos")
    assert_user_error(result, "max_rejected", "2 images left out", "rejected.csv")
    assert "broken0.jpg" in (project.path / "data" / "rejected.csv").read_text()
    result = project.run("prepare", "--data.source=photos", "--data.max_rejected=0.2")
    assert result.returncode == 0, result.stderr
    assert "2 images left out" in result.stdout


@pytest.mark.slow
def test_names_in_other_scripts_with_spaces_and_very_long(project):
    folder = images(project.path / "фото 猫", **{"кот": 9, "собака большая": 9, "accuracy": 9})
    (folder / "кот" / "0.png").rename(folder / "кот" / ("ж" * 125 + "x.png"))
    result = project.run(
        "main", "--data.source=фото 猫", "--data.image_size=16", "--train.epochs=1", PYTHONUTF8="1"
    )
    assert result.returncode == 0, result.stderr
    assert "27 images in 3 classes (accuracy 9, кот 9, собака большая 9)" in result.stdout
    assert "ROC AUC" in result.stdout


def test_evaluate_and_register_with_nothing_to_work_on(project):
    assert_user_error(project.run("evaluate"), "no training or sweep to evaluate", "-e train")
    assert_user_error(project.run("register"), "no sweep to register from", "-e sweep")


def test_run_that_does_not_exist(project):
    assert_user_error(project.run("evaluate", "--evaluate.run_id=abc"), "no run 'abc'")
    assert_user_error(project.run("register", "--register.run_id=abc"), "no run 'abc'")


@pytest.mark.parametrize("listening", [False, True])
def test_tracking_server_that_does_not_answer(project, listening):
    """Nothing is there, or something that takes the connection and then says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = project.run("prepare", MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_TIMEOUT="1")
    assert_user_error(result, uri, "does not answer within 1 s", "MLFLOW_TRACKING_URI")
    assert not (project.path / "data").exists()


def test_store_that_cannot_be_opened(project):
    (project.path / "mlflow.db").write_text("this is no database, but a text of some length" * 99)
    assert_user_error(project.run("prepare"), "tracking store", "mlflow.db")


def test_split_without_images(project):
    done = project.run(
        "train", "--data.limit=20", "--data.image_size=16", "--train.epochs=1", "--data.test=0"
    )
    assert done.returncode == 0, done.stderr
    assert_user_error(project.run("evaluate"), "test split has no images", "data.test")
