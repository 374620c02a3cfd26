"""More classes than every probability is kept for, through a sweep, its page, the registry and its card."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Project, cell_runs, predictions, sweep_run
from mlflow import MlflowClient
from PIL import Image

pytestmark = pytest.mark.slow

CLASSES = 60


def folder(run, name: str) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"), name)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Project:
    """A project with a sweep of two cells on coarse patterns, one for each class, under noise."""
    project, rng = Project(tmp_path_factory.mktemp("many")), np.random.default_rng(0)
    for number in range(CLASSES):
        place = project.path / "images" / f"class {number:02}"
        place.mkdir(parents=True)
        pattern = rng.integers(40, 216, (4, 4, 3)).repeat(8, axis=0).repeat(8, axis=1)
        for image in range(5):
            noisy = pattern + rng.integers(-40, 40, pattern.shape)
            Image.fromarray(noisy.astype(np.uint8)).save(place / f"{image}.png")
    result = project.run(
        "sweep", "--data.source=images", "--data.image_size=32", "--train.epochs=3", "--train.batch_size=8",
        '--sweep.grid={"learning_rate":[0.01,0.001]}', "--sweep.workers=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "class 09 5 and 50 more): 180 train, 60 validation, 60 test" in result.stdout
    return project


def test_predictions_keep_the_five_most_probable_classes(swept):
    for run in cell_runs(swept).values():
        rows = predictions(folder(run, "report"))
        tops = [[row[f"top_{place}_probability"] for place in range(1, 6)] for row in rows]
        assert np.shape(tops) == (CLASSES, 5)  # one image of each class
        assert np.all(np.diff(tops) <= 0)
        assert all(row["top_1"] == row["prediction"] for row in rows)
        right = np.mean([row["label"] == row["prediction"] for row in rows])
        assert run.data.metrics["report/accuracy"] == pytest.approx(right)
        own = np.clip([row["label_probability"] for row in rows], 1e-7, 1)
        assert run.data.metrics["report/loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
        assert run.data.metrics["report/roc_auc"] > 0.5


def test_cells_are_compared_and_the_page_lists_confusions(swept):
    parent = sweep_run(swept)
    verdict = json.loads(folder(parent, "verdict.json").read_text())
    assert verdict["compared"] == 1
    page = folder(parent, "report.html").read_text()
    assert "There are too many classes for a matrix: these are the most frequent confusions." in page
    assert "The 20 largest and the 20 smallest classes; 20 more lie between them." in page
    assert len(predictions(folder(parent, "test"))) == CLASSES


def test_card_has_the_recorded_scores_and_mistakes(swept):
    result = swept.run("register")
    assert result.returncode == 0, result.stderr
    client = MlflowClient(swept.uri)
    (run_id,) = re.findall(r"card/model_card.md of run (\w+)", result.stdout)
    card = folder(client.get_run(run_id), "card/model_card.md").read_text()
    best = client.get_run(sweep_run(swept).data.tags["best_run_id"])
    for name, shown in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
        estimate = best.data.metrics[f"report/{name}"]
        (low, high) = re.search(rf"\| {shown} \| {estimate:.4f} \| ([\d.]+) to ([\d.]+) \|", card).groups()
        assert float(low) - 5e-4 <= estimate <= float(high) + 5e-4
    wrong = [row for row in predictions(folder(best, "report")) if row["label"] != row["prediction"]]
    surest = max(wrong, key=lambda row: row["top_1_probability"])
    assert f"{surest['label']} | {surest['prediction']} | {surest['top_1_probability']:.4f} |" in card
