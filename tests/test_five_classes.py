"""Five classes, a network on a backbone from a file, and every step that a user would run on them."""

import csv
import json
from pathlib import Path

import keras
import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from conftest import Project, cell_runs, leaderboard, sweep_run
from keras import layers
from mlflow import MlflowClient
from PIL import Image, ImageDraw

pytestmark = pytest.mark.slow

COLOURS = {
    "brick red": (178, 34, 34),
    "grün": (34, 139, 34),
    "navy": (0, 0, 128),
    "white": (245, 245, 245),
    "yellow|ish": (230, 200, 30),
}
SIZE = 32


def draw(colour: tuple[int, int, int], number: int) -> Image.Image:
    """A disc of a colour somewhere on a grey ground."""
    random = np.random.default_rng(number)
    image = Image.new("RGB", (60, 50), tuple(random.integers(100, 150, 3).tolist()))
    x, y, radius = random.integers(5, 20, 3).tolist()
    ImageDraw.Draw(image).ellipse((x, y, x + 20 + radius, y + 15 + radius), fill=colour)
    return image


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Project:
    """A project in which the default grid was asked of a transfer network, with two learning rates."""
    project = Project(tmp_path_factory.mktemp("five"))
    for label, colour in COLOURS.items():
        folder = project.path / "images" / label
        folder.mkdir(parents=True)
        for number in range(15):
            draw(colour, number).save(folder / f"{number}.png")
    keras.utils.set_random_seed(5)
    inputs = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 32, offset=-4)(inputs)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    keras.Model(inputs, layers.Conv2D(32, 3, strides=2, activation="relu", name="last")(x)).save(
        project.path / "backbone.keras"
    )
    result = project.run(
        "sweep", "--data.source=images", f"--data.image_size={SIZE}",
        "--train.epochs=12", "--train.batch_size=8",
        "--model.name=transfer", "--model.backbone=backbone.keras", "--model.dropout=0",
        "--model.fine_tune_epochs=1", "--sweep.grid.learning_rate=[0.1, 0.03]", "--sweep.workers=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    ignored = "activation, kernel_initializer, bias_initializer ignored: not parameters of transfer"
    assert f"sweep.grid: {ignored}" in result.stdout
    result = project.run("register", "--register.name=discs")
    assert result.returncode == 0, result.stderr
    return project


def test_sweep_has_two_cells_of_all_their_epochs(swept):
    runs = cell_runs(swept)
    assert set(runs) == {"LR_0.1", "LR_0.03"}
    assert {run.data.tags["epochs"] for run in runs.values()} == {"13"}
    assert len(list((swept.path / "data/features").rglob("*.npy"))) == 2  # once for both cells: two splits
    rows = leaderboard(sweep_run(swept))
    assert list(rows[0])[:4] == ["rank", "name", "learning_rate", "accuracy"]
    assert float(rows[0]["accuracy"]) > 0.5  # five colours by chance: 0.2


def test_report_tells_five_classes_apart(swept):
    best = MlflowClient(swept.uri).get_run(sweep_run(swept).data.tags["best_run_id"])
    folder = Path(best.info.artifact_uri.removeprefix("file://"), "report")
    confusion = json.loads((folder / "confusion_matrix.json").read_text())
    assert confusion["classes"] == sorted(COLOURS)
    assert np.array(confusion["matrix"]).sum(axis=1).tolist() == [3] * 5


def test_prediction_explanation_and_export_of_the_champion(swept):
    common = ("--register.name=discs",)
    result = swept.run("predict", "--predict.source=images", *common)
    assert result.returncode == 0, result.stderr
    with (swept.path / "predictions/predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "label", "probability", *sorted(COLOURS), "error"]
    right = [row["label"] == row["name"].split("/")[0] for row in rows]
    assert len(right) == 75 and np.mean(right) > 0.5

    result = swept.run("explain", "--explain.source=images/navy", "--explain.max_images=2", *common)
    assert result.returncode == 0, result.stderr
    assert "CAM" in result.stdout
    assert len(list((swept.path / "explanations").glob("*.png"))) == 3  # two and the sheet

    result = swept.run("export", '--export.formats=["keras","onnx"]', *common)
    assert result.returncode == 0, result.stderr
    assert json.loads((swept.path / "exports/classes.json").read_text()) == sorted(COLOURS)

    mlflow.set_tracking_uri(swept.uri)
    model = mlflow.pyfunc.load_model("models:/discs@champion")
    mlflow.set_tracking_uri(None)
    encoded = [(swept.path / "images" / row["name"]).read_bytes() for row in rows[::10]]
    answer = model.predict(pd.DataFrame({"image": encoded}))
    assert list(answer["label"]) == [row["label"] for row in rows[::10]]
    pixels = np.stack([np.asarray(draw(COLOURS["navy"], 3).resize((SIZE, SIZE)))])
    session = onnxruntime.InferenceSession(swept.path / "exports/model.onnx")
    (probabilities,) = session.run(["probabilities"], {"images": pixels})
    served = model.get_raw_model().predict(pixels)[sorted(COLOURS)].to_numpy()
    np.testing.assert_allclose(probabilities, served, atol=1e-5)


def test_card_escapes_what_would_break_its_tables(swept):
    (version,) = MlflowClient(swept.uri).search_model_versions("name = 'discs'")
    assert "yellow\\|ish" in version.description
    assert "rank 1 of 2" in version.description.lower()
