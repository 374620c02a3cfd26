"""The explain step as a user runs it: real commands, a real store, the figures that they leave."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Project, assert_user_error, predictions
from mlflow import MlflowClient
from PIL import Image

from pipeline.sources import sample

pytestmark = pytest.mark.slow

SMALL = ("--data.limit=100", "--data.image_size=32", "--train.epochs=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Project:
    """A project with one training, which makes many mistakes, and a folder of images."""
    project = Project(tmp_path_factory.mktemp("trained"))
    result = project.run("train", *SMALL)
    assert result.returncode == 0, result.stderr
    photos = project.path / "photos" / "cat"
    photos.mkdir(parents=True)
    for number in range(3):
        sample.draw("cat", number).save(photos / f"{number}.png")
    (photos / "1b.png").write_bytes((photos / "1.png").read_bytes()[:300])
    (photos.parent / "notes.txt").write_text("no image")
    return project


@pytest.fixture(scope="module")
def client(trained: Project) -> MlflowClient:
    return MlflowClient(trained.uri)


@pytest.fixture(scope="module")
def training(client: MlflowClient):
    (run,) = client.search_runs(["0"], "tags.step = 'train'")
    return run


def newest_explanation(client: MlflowClient):
    return client.search_runs(["0"], "tags.step = 'explain'", order_by=["attributes.start_time DESC"])[0]


def logged(run) -> dict[str, bytes]:
    folder = Path(run.info.artifact_uri.removeprefix("file://"), "explanations")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folder_of_images(trained, client, training):
    result = trained.run("explain", "--explain.source=photos", "--explain.output=figures/new")
    assert result.returncode == 0, result.stderr
    assert "skipped, unreadable: cat/1b.png: truncated" in result.stdout
    assert "notes.txt" not in result.stdout
    sheet = trained.path / "figures/new/sheet.png"
    assert f"3 images explained by Grad-CAM\nexplanations: {sheet}\n" in result.stdout
    files = on_disk(trained.path / "figures" / "new")
    assert set(files) == {"sheet.png", "image_01.png", "image_02.png", "image_03.png"}
    run = newest_explanation(client)
    assert run.data.tags["explained_run_id"] == training.info.run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "explain"
    assert run.data.params["explain.source"] == "photos"
    assert logged(run) == files
    for name in files:
        with Image.open(trained.path / "figures" / "new" / name) as image:
            assert image.format == "PNG"
            assert len(np.unique(np.asarray(image.convert("L")))) > 50


def test_most_confident_errors_on_the_validation_split(trained, client, training):
    """Without a source; which they are is read off the training's own list of predictions."""
    folder = Path(training.info.artifact_uri.removeprefix("file://"), "report")
    wrong = [row for row in predictions(folder) if row["label"] != row["prediction"]]
    assert len(wrong) >= 4
    result = trained.run("explain", "--explain.max_images=4")
    assert result.returncode == 0, result.stderr
    assert f"{len(wrong)} errors on 20 validation images; explaining the 4 most confident" in result.stdout
    assert set(on_disk(trained.path / "explanations")) == {
        "sheet.png",
        *(f"image_0{n}.png" for n in range(1, 5)),
    }
    assert logged(newest_explanation(client)) == on_disk(trained.path / "explanations")


def test_class_and_layer_change_the_map(trained, training):
    ask = ("--explain.source=photos", "--explain.max_images=1", f"--explain.run_id={training.info.run_id}")
    sheets = {}
    for name, more in {
        "cat": ("--explain.class_name=cat",),
        "dog": ("--explain.class_name=dog",),
        "early": ("--explain.class_name=cat", "--explain.layer=conv2d_1"),
    }.items():
        result = trained.run("explain", *ask, *more, f"--explain.output={name}")
        assert result.returncode == 0, result.stderr
        assert "explaining the first 1 of 4 images; see explain.max_images" in result.stdout
        sheets[name] = (trained.path / name / "image_01.png").read_bytes()
    assert len(set(sheets.values())) == 3


def test_champion_comes_before_a_newer_run(trained, client, training):
    registered = trained.run("register", f"--register.run_id={training.info.run_id}", "--register.name=pets")
    assert registered.returncode == 0, registered.stderr
    newer = client.create_run("0", tags={"step": "train"}).info.run_id  # without a model
    client.set_terminated(newer)
    try:
        result = trained.run("explain", "--explain.source=photos", "--register.name=pets")
        assert result.returncode == 0, result.stderr
        assert "explaining models:/pets@champion, version 1" in result.stdout
        assert newest_explanation(client).data.tags["explained_run_id"] == training.info.run_id
        assert_user_error(trained.run("explain", "--explain.source=photos"), "has no model")
    finally:
        client.delete_run(newer)


def test_what_users_get_wrong(trained):
    (trained.path / "empty").mkdir()
    (trained.path / "broken").mkdir()
    (trained.path / "broken" / "1.jpg").write_bytes(b"no image")
    (trained.path / "file").write_text("")
    photos = "--explain.source=photos"
    for arguments, words in {
        ("--explain.source=empty",): ("no images", str(trained.path / "empty")),
        ("--explain.source=nowhere",): ("nowhere", "does not exist", "allowed: a folder"),
        ("--explain.source=file",): ("none of the 1 images", "file"),
        ("--explain.source=broken",): ("none of the 1 images", "1.jpg", "not an image"),
        (photos, "--explain.class_name=bird"): ("'bird'", "null, cat, dog"),
        (photos, "--explain.layer=conv"): ("'conv'", "conv2d, activation, max_pooling2d", "conv2d_3"),
        (photos, "--explain.run_id=abc"): ("no run 'abc'",),
        (photos, "--explain.output=file"): ("explain.output", str(trained.path / "file")),
        (photos, "--explain.max_images=0"): ("explain.max_images", "from 1 up to 100"),
    }.items():
        assert_user_error(trained.run("explain", *arguments), *words)


def test_no_model_at_all(project):
    result = project.run("explain")
    assert_user_error(result, "no model to explain", "models:/dogs-vs-cats@champion", "-e train")
    assert not (project.path / "explanations").exists()
