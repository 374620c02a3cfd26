"""What a card is told of runs that are there, by hand, in a store of their own; TensorFlow is not needed."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset

from pipeline.dataset.prepare import Prepared
from pipeline.evaluation import metrics
from pipeline.inference import report
from pipeline.reports import collect_card
from pipeline.runtime.errors import UserError
from pipeline.tracking import sweep_runs

CLASSES = ("cat", "dog")
NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.4, 0.6]], np.float32)


def reported(folder: str, probabilities: np.ndarray = PROBABILITIES) -> dict[str, bytes]:
    """The files of a report in an artifact folder."""
    found = metrics.report(LABELS, probabilities, CLASSES)
    files = report.classification(found, NAMES, LABELS, probabilities, "")
    return {f"{folder}/{name}": content for name, content in files.items()}


REPORT = reported("report")
PARAMS = {"sweep.metric": "accuracy", "data.source": "https://me:secret@host/pets.zip"}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> str:
    """An experiment in an empty store, which is the one in use."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_RUN_ID", raising=False)  # of the run that `mlflow run -e test` made elsewhere
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        yield MlflowClient().create_experiment("cards", artifact_location=str(folder / "artifacts"))
        mlflow.set_tracking_uri(None)


def record(experiment: str, tags: dict, files: dict[str, bytes], digest: str = "d", **metrics: float) -> str:
    """A finished run with these artifacts; gives its id."""
    trained = {"best_epoch": "2", "epochs": "3", "best_val_loss": "0.5"}
    with mlflow.start_run(experiment_id=experiment, run_name=tags["step"], tags=trained | tags) as run:
        mlflow.log_params(PARAMS)
        mlflow.log_metrics({key.replace("_", "/", 1): value for key, value in metrics.items()})
        mlflow.log_input(MetaDataset(CodeDatasetSource({}), name="pets", digest=digest))
        for path, content in files.items():
            place = Path(mlflow.get_artifact_uri().removeprefix("file://"), path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return run.info.run_id


def training(experiment: str) -> str:
    return record(experiment, {"step": "train"}, REPORT, report_accuracy=0.5)


def prepared(tmp_path: Path, **changes) -> Prepared:
    images = Prepared(
        path=tmp_path,
        classes=CLASSES,
        image_size=8,
        digest="whole digest",
        images=np.arange(4, dtype=np.uint8).repeat(8 * 8 * 3).reshape(4, 8, 8, 3) * 60,
        labels=LABELS,
        names=NAMES,
        splits=np.array(["validation"] * 4),
        image_digests=np.array([[1, 0], [1, 0], [2, 0], [3, 0]], "u8"),
        rejected=(),
    )
    return replace(images, **changes)


def test_facts_of_a_training_by_itself(experiment, tmp_path):
    run_id = training(experiment)
    facts = collect_card.facts(run_id, "whole digest", prepared(tmp_path))
    assert (facts.run_id, facts.best_epoch, facts.epochs, facts.diverged) == (run_id, 2, 3, False)
    assert facts.validation.confusion.tolist() == [[1, 1], [1, 1]]
    assert [(m.name, m.label, m.predicted) for m in facts.mistakes] == [
        ("c.jpg", "dog", "cat"), ("b.jpg", "cat", "dog"),
    ]  # fmt: skip
    assert [m.probability for m in facts.mistakes] == pytest.approx([0.8, 0.7])
    assert facts.images.counts["validation"] == {"cat": 2, "dog": 2}
    assert facts.images.identical == (2, 1)
    assert (facts.entry, facts.test, facts.missing) == (None, None, "")
    assert facts.params["data.source"] == "https://me:***@host/pets.zip"


def test_images_that_are_not_those_of_the_training_are_not_shown(experiment, tmp_path):
    run_id = training(experiment)
    for images, why in (
        (UserError("no folder photos"), "no folder photos"),
        (prepared(tmp_path, digest="another"), "have changed"),
        (prepared(tmp_path, names=("a.jpg", "b.jpg", "c.jpg", "e.jpg")), "other names"),
    ):
        facts = collect_card.facts(run_id, "whole digest", images)
        assert facts.images is None and why in facts.missing
        assert len(facts.mistakes) == 2


def test_place_among_the_finished_cells(experiment, tmp_path):
    sweep = record(experiment, {"step": "sweep", "study": "0123"}, {})
    of = {"step": "cell", "study": "0123", "mlflow.parentRunId": sweep}
    cells = {
        accuracy: record(
            experiment,
            of | {"cell": f'{{"learning_rate": {accuracy}}}'},
            REPORT,
            report_accuracy=accuracy,
        )
        for accuracy in (0.5, 0.75, 0.25)
    }
    MlflowClient().create_run(experiment, tags=of | {"cell": '{"learning_rate": 9}'})  # not finished
    first, second = (
        collect_card.facts(cells[a], "whole digest", prepared(tmp_path)).entry for a in (0.75, 0.5)
    )
    assert (first.sweep_run_id, first.study, first.metric) == (sweep, "0123", "accuracy")
    assert (first.rank, first.cells, first.value, first.other) == (1, 3, 0.75, ("LR_0.5", 0.5))
    assert (second.rank, second.cells, second.value, second.other) == (2, 3, 0.5, ("LR_0.75", 0.75))
    assert first.comparison is None, "nobody has compared them"
    # trained again: by the mean over fresh seeds, the second is the best
    client = MlflowClient()
    rule = {"metric": "accuracy", "finalists": 2, "repeats": 2, "seed": 42}
    client.set_tag(sweep, "ranked_by", json.dumps(rule))
    client.log_metric(sweep, "images/validation", 4)
    for rate, scores in ((0.75, (0.45, 0.55)), (0.5, (0.5, 0.7))):
        for seed, accuracy in zip((43, 44), scores, strict=True):
            tags = of | {"step": "finalist", "finalist": json.dumps({"learning_rate": rate, "seed": seed})}
            record(experiment, tags, REPORT, report_accuracy=accuracy)
    winner, other = (
        collect_card.facts(cells[a], "whole digest", prepared(tmp_path)).entry for a in (0.5, 0.75)
    )
    assert (winner.rank, other.rank, other.comparison) == (1, 2, None)
    assert winner.by_mean and (winner.value, winner.other) == (pytest.approx(0.6), ("LR_0.75", 0.5))
    comparison = winner.comparison
    assert (comparison.not_significantly_worse, comparison.compared, comparison.images) == (
        ["LR_0.75", "LR_0.25"],
        2,
        4,
    )
    assert (comparison.seeds, comparison.finalists) == (2, 2)
    assert (comparison.mean, comparison.spread) == pytest.approx((0.6, statistics.stdev([0.5, 0.7])))
    MlflowClient().delete_run(cells[0.25])
    with pytest.raises(UserError, match=f"run {cells[0.25]} is a cell that is not finished, or was deleted"):
        collect_card.facts(cells[0.25], "whole digest", prepared(tmp_path))
    assert sweep_runs.test_run_id_of(cells[0.75]) is None
    MlflowClient().set_tag(sweep, "tested_run_id", cells[0.75])
    assert sweep_runs.test_run_id_of(cells[0.75]) == sweep
    assert sweep_runs.test_run_id_of(cells[0.5]) is None


def test_test_scores_are_those_of_the_newest_evaluation_of_the_same_images(experiment, tmp_path):
    run_id = training(experiment)
    of = {"step": "evaluate", "evaluated_run_id": run_id}
    right = reported("test", np.eye(2)[LABELS])
    record(experiment, of, reported("test"), test_accuracy=0.5)
    newest = record(experiment, of, right, test_accuracy=1.0)
    record(experiment, of, reported("validation"), validation_accuracy=0.5)
    record(experiment, of, reported("test"), digest="other", test_accuracy=0.5)
    record(experiment, of | {"evaluated_run_id": "another"}, {}, test_accuracy=0.5)
    tested, measured = collect_card.facts(run_id, "whole digest", prepared(tmp_path)).test
    assert tested == newest
    assert measured.accuracy == 1


def test_run_without_its_predictions_is_told(experiment, tmp_path):
    run_id = record(experiment, {"step": "train"}, {})
    with pytest.raises(UserError, match=f"run {run_id} has no artifact report/predictions.parquet"):
        collect_card.facts(run_id, "whole digest", prepared(tmp_path))


def test_sheet_shows_the_mistakes_images(experiment, tmp_path):
    import io

    from PIL import Image

    images = prepared(tmp_path)
    facts = collect_card.facts(training(experiment), "whole digest", images)
    with Image.open(io.BytesIO(collect_card.sheet(facts.mistakes, images))) as sheet:
        grey = sheet.convert("L")
    assert [grey.getpixel((70 + 134 * n, 70)) for n in range(2)] == pytest.approx([120, 60], abs=3)
