"""The main job as a user runs it: real commands, a real store, what they leave in it."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import ROOT, Project, predictions
from mlflow import MlflowClient
from PIL import Image

from pipeline.evaluation import significance
from pipeline.evaluation.predictions import Predictions
from pipeline.inference import report
from pipeline.runtime.errors import UserError
from pipeline.tracking import metric_histories

pytestmark = pytest.mark.slow

SMALL = ("--data.limit=120", "--data.image_size=32", "--train.epochs=2")
GRID = '--sweep.grid={"learning_rate":[0.01,1e9],"activation":["relu","leaky_relu"]}'


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Project:
    """A project in which a sweep of four cells has ended; at a rate of 1e9 every network diverges."""
    project = Project(tmp_path_factory.mktemp("swept"))
    # one worker: its digits are those of a training by itself, which has all cores too
    project.result = project.run("sweep", *SMALL, GRID, "--sweep.workers=1")
    assert (project.result.returncode, project.result.stderr) == (0, "")
    return project


@pytest.fixture(scope="module")
def client(swept: Project) -> MlflowClient:
    return MlflowClient(swept.uri)


@pytest.fixture(scope="module")
def parent(client: MlflowClient):
    (run,) = client.search_runs(["0"], "tags.step = 'sweep'")
    return run


@pytest.fixture(scope="module")
def cell_runs(client: MlflowClient, parent):
    return client.search_runs(["0"], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")


def artifact(run, path: str) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"), path)


def test_every_cell_is_one_finished_nested_run(cell_runs):
    assert sorted(run.info.run_name for run in cell_runs) == [
        "LR_0.01-AC_LeakyReLU",
        "LR_0.01-AC_ReLU",
        "LR_1000000000.0-AC_LeakyReLU",
        "LR_1000000000.0-AC_ReLU",
    ]
    assert {run.info.status for run in cell_runs} == {"FINISHED"}
    assert len({run.data.tags["study"] for run in cell_runs}) == 1
    for run in cell_runs:
        cell = json.loads(run.data.tags["cell"])
        assert run.data.tags["cell"] == json.dumps(cell, sort_keys=True)
        assert float(run.data.params["train.learning_rate"]) == cell["learning_rate"]
        assert run.data.params["model.activation"] == cell["activation"]
        assert run.data.params["data.image_size"] == "32"


def test_cell_has_its_metrics(client, cell_runs):
    run = next(run for run in cell_runs if run.info.run_name == "LR_0.01-AC_ReLU")
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == [1, 2]
    accuracies = [point.value for point in client.get_metric_history(run.info.run_id, "val_accuracy")]
    assert run.data.metrics["report/accuracy"] == pytest.approx(max(accuracies))
    assert {"report/precision", "report/recall", "report/f1"} <= set(run.data.metrics)


def test_cell_has_its_report(cell_runs):
    for run in cell_runs:
        report = artifact(run, "report")
        assert {path.name for path in report.iterdir()} == {
            "classification_report.txt", "classification_report.json", "confusion_matrix.json",
            "confusion_matrix.png", "learning_curves.png", "predictions.parquet",
        }  # fmt: skip
        confusion = json.loads((report / "confusion_matrix.json").read_text())
        assert confusion["classes"] == ["cat", "dog"]
        matrix = np.array(confusion["matrix"])
        assert matrix.sum() == 24  # a fifth of 120
        assert np.trace(matrix) / 24 == pytest.approx(run.data.metrics["report/accuracy"])
        right = sum(row["label"] == row["prediction"] for row in predictions(report))
        assert right == np.trace(matrix)


def test_diverged_cell_is_a_result(cell_runs):
    for run in cell_runs:
        constant = len({row["prediction"] for row in predictions(artifact(run, "report"))}) == 1
        assert run.data.tags.get("diverged") == ("true" if constant else None)
        if run.info.run_name.startswith("LR_1000000000.0"):
            metrics = run.data.metrics
            found = [metrics[f"report/{name}"] for name in ("accuracy", "precision", "recall", "f1")]
            assert found == pytest.approx([0.5, 0.25, 0.5, 1 / 3])


def test_cells_have_a_model_and_a_dataset(client, cell_runs):
    digests = set()
    for run in cell_runs:
        (model,) = run.outputs.model_outputs
        logged = client.get_logged_model(model.model_id)
        assert logged.name == "model"
        used = [entry.dataset for entry in run.inputs.dataset_inputs]
        assert sorted(data.name for data in used) == ["sample", "sample-validation"]
        digests |= {data.digest for data in used}
        assert (logged.params, logged.model_type) == (run.data.params, "simple_cnn")
        assert logged.tags["cell"] == run.data.tags["cell"]
        on_validation = [metric for metric in logged.metrics if metric.dataset_name == "sample-validation"]
        assert {metric.key: metric.value for metric in on_validation} == {
            key: value
            for key, value in run.data.metrics.items()
            if key.startswith("report/") and not math.isnan(value)
        }
        folder = Path(logged.artifact_location.removeprefix("file://"))
        assert (folder / "input_example.json").exists()
        assert (
            f"tensorflow=={__import__('tensorflow').__version__}" in (folder / "requirements.txt").read_text()
        )
        described = mlflow.models.Model.load(str(folder))
        assert described.signature.inputs.inputs[0].shape == (-1, 32, 32, 3)
        assert described.metadata["classes"] == ["cat", "dog"]
    assert len(digests) == 1


def test_parent_has_the_outcome(parent, cell_runs, swept):
    metrics = parent.data.metrics
    assert [metrics[f"cells/{name}"] for name in ("total", "finished", "failed")] == [4, 4, 0]
    with artifact(parent, "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "rank", "name", "learning_rate", "activation", "accuracy", "precision", "recall", "f1", "run_id",
    ]  # fmt: skip
    assert {row["run_id"] for row in rows} == {run.info.run_id for run in cell_runs}
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert parent.data.tags["best_run_id"] == rows[0]["run_id"]
    assert metrics["best/accuracy"] == accuracies[0]
    assert "| Learning rate |" in artifact(parent, "leaderboard.md").read_text()
    assert artifact(parent, "data/rejected.csv").read_text() == "name,reason\n"
    assert rows[0]["name"] in swept.result.stdout


def test_only_the_winner_meets_the_test_split(client, parent, cell_runs):
    assert {"test/accuracy", "test/f1"} <= set(parent.data.metrics)
    assert not any(key.startswith("test/") for run in cell_runs for key in run.data.metrics)
    models = {output.model_id: run for run in cell_runs for output in run.outputs.model_outputs}
    for model_id, run in models.items():
        tested = {
            metric.key: metric.value
            for metric in client.get_logged_model(model_id).metrics
            if metric.dataset_name == "sample-test"
        }
        won = run.info.run_id == parent.data.tags["best_run_id"]
        assert tested == {
            key: value for key, value in parent.data.metrics.items() if won and key.startswith("test/")
        }
    tested = {row["name"] for row in predictions(artifact(parent, "test"))}
    validated = {row["name"] for row in predictions(artifact(cell_runs[0], "report"))}
    assert len(tested) == len(validated) == 24
    assert not tested & validated


def test_report_of_the_sweep_links_its_cells(parent, cell_runs, swept):
    assert f"report: {artifact(parent, 'report.html')}" in swept.result.stdout
    page = artifact(parent, "report.html").read_text()
    linked = set(re.findall(r"#/experiments/0/runs/(\w+)", page))
    assert linked == {run.info.run_id for run in [parent, *cell_runs]}
    assert f"validation accuracy {parent.data.metrics['best/accuracy']:.3f}" in page
    assert page.count("data:image/jpeg") > 12  # examples of two classes; mistakes, and uncertain images
    assert parent.data.tags["machine"] in page


def test_report_of_an_older_sweep_needs_no_images(parent, cell_runs, swept, browser):
    """By a cell's run id, where the prepared images are gone; a real browser opens it from disk."""
    run_id = f"--report.run_id={cell_runs[0].info.run_id}"
    result = swept.run("report", run_id, "--data.cache=gone", "--report.output=a/b.html")
    assert result.returncode == 0, result.stderr
    file = swept.path / "a/b.html"
    assert str(file) in result.stdout
    assert artifact(parent, "report.html").read_bytes() == file.read_bytes()
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(file.as_uri())
    page.wait_for_selector("#time [data-drawn]")
    assert "are not on this machine any more" in page.inner_text("#data")
    assert page.locator("#data img").count() == 0
    assert page.locator("#cells tbody tr").count() == 4
    diverged = [run for run in cell_runs if run.data.tags.get("diverged") == "true"]
    assert len(diverged) >= 2
    assert page.locator("#cells .bad").all_inner_texts() == ["diverged"] * len(diverged)
    assert wrong == []
    page.close()


@pytest.mark.parametrize(
    ("run_id", "experiment", "words"),
    [
        (None, "empty", "there is no sweep to report on; run `mlflow run . -e sweep` first"),
        ("0000", "Default", "no run '0000'"),
    ],
)
def test_report_refuses_what_is_no_sweep(swept, monkeypatch, run_id, experiment, words):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)  # one that is made by asking for it
    mlflow.set_tracking_uri(swept.uri)
    try:
        with pytest.raises(UserError, match=words):
            metric_histories.sweep_run(run_id)
    finally:
        mlflow.set_tracking_uri(None)


PREDICT = """
import csv, sys
import mlflow, numpy as np
images, index, uri = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model("models:/dogs-vs-cats@champion")
rows = [row for row in csv.DictReader(open(index))]
images = np.load(images)
wanted = [n for n, row in enumerate(rows) if row["split"] == "validation"]
answers = model.get_raw_model().predict(images[wanted])[["cat", "dog"]].to_numpy()
for n, answer in zip(wanted, answers):
    print("answer", rows[n]["name"], *(repr(float(value)) for value in answer))
"""


def test_registered_champion_gives_the_same_probabilities_in_a_fresh_process(swept, client, parent, tmp_path):
    result = swept.run("register")
    assert (result.returncode, result.stderr) == (0, "")
    version = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    best = parent.data.tags["best_run_id"]
    assert version.run_id == best
    assert_card(client, result.stdout, version, parent)
    (folder,) = (path.parent for path in swept.path.glob("data/prepared/*/index.csv"))
    arguments = [str(folder / "images.npy"), str(folder / "index.csv"), swept.uri]
    command = [sys.executable, "-c", PREDICT, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("answer ")]
    answers = {name: [float(value) for value in values] for _, name, *values in lines}
    run = client.get_run(best)
    recorded = {row["name"]: [row["cat"], row["dog"]] for row in predictions(artifact(run, "report"))}
    assert answers.keys() == recorded.keys()
    for name, values in recorded.items():
        assert answers[name] == pytest.approx(values, abs=1e-6)


def assert_card(client: MlflowClient, said: str, version, parent) -> None:
    """What the winner's model card says, against what the runs hold."""
    (run_id,) = re.findall(r"card/model_card.md of run (\w+)", said)
    assert version.tags["card_run_id"] == run_id
    folder, best = artifact(client.get_run(run_id), "card"), client.get_run(version.run_id)
    card = (folder / "model_card.md").read_text()
    validation, test = best.data.metrics["report/f1"], parent.data.metrics["test/f1"]
    assert re.search(rf"\| F1 \| {validation:.4f} \| 0[^|]* \| {test:.4f} \| 0", card)
    assert f"Rank 1 of 4 cells of sweep {parent.info.run_id}" in card
    assert "| all classes | 72 | 24 | 24 |" in card
    wrong = [row for row in predictions(artifact(best, "report")) if row["label"] != row["prediction"]]
    surest = max(wrong, key=lambda row: row[row["prediction"]])
    assert f"| 1 | {surest['name']} | {surest['label']} | {surest['prediction']} | 0." in card
    with Image.open(folder / "mistakes.png") as sheet:
        assert sheet.width == min(4, len(wrong)) * 134 + 6
    assert len(version.description.encode()) <= 5000
    for words in (
        f"`card/model_card.md` of run {run_id}", "| F1 |", "cat, dog", version.tags["data_digest"],
        f'load_model("models:/dogs-vs-cats/{version.version}")',
    ):  # fmt: skip
        assert words in version.description
    for section in re.findall("^## .*", version.description, re.MULTILINE):
        assert section in card


def test_alias_moves_only_to_a_better_version(swept, client, parent):
    assert swept.run("register").returncode == 0
    first = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    with artifact(parent, "leaderboard.csv").open() as file:
        worst = list(csv.DictReader(file))[-1]["run_id"]
    result = swept.run("register", f"--register.run_id={worst}")
    assert result.returncode == 0, result.stderr
    assert "not better" in result.stdout
    second = client.search_model_versions(f"run_id = '{worst}'")[0]
    assert "not better" in second.tags["champion_reason"]
    assert "Rank 4 of 4 cells" in second.description
    assert f"mlflow run . -e evaluate -P evaluate.run_id={worst}" in second.description
    assert client.get_model_version_by_alias("dogs-vs-cats", "champion").version == first.version
    client.set_model_version_tag("dogs-vs-cats", first.version, "sweep_settled", "false")  # as it was then
    again = swept.run("register")
    assert again.returncode == 0
    assert len(client.search_model_versions("name = 'dogs-vs-cats'")) == 2, "a run is registered once"
    renewed = client.get_model_version("dogs-vs-cats", first.version)
    assert renewed.tags["card_run_id"] != first.tags["card_run_id"]
    assert f"of run {renewed.tags['card_run_id']}" in renewed.description
    assert (renewed.tags["sweep_settled"], renewed.tags["sweep_run_id"]) == ("true", parent.info.run_id)


def test_evaluate_takes_the_newest_run_with_its_own_images(swept, client, parent):
    result = swept.run("evaluate")
    assert result.returncode == 0, result.stderr
    run = client.search_runs(["0"], "tags.step = 'evaluate'")[0]
    assert run.data.tags["evaluated_run_id"] == parent.data.tags["best_run_id"]
    assert run.data.metrics["test/accuracy"] == parent.data.metrics["test/accuracy"]
    names = {path.name for path in artifact(run, "test").iterdir()}
    assert {
        "predictions.parquet",
        "roc_curve.png",
        "confusion_matrix.png",
        "classification_report.txt",
    } <= names


def test_one_training_gives_what_its_cell_gave(swept, client, cell_runs):
    """To the last digit: a cell is a training, in another process and after other cells."""
    result = swept.run("train", *SMALL, "--train.learning_rate=0.01", "--model.activation=relu")
    assert result.returncode == 0, result.stderr
    (alone,) = client.search_runs(["0"], "tags.step = 'train'")
    cell = next(run for run in cell_runs if run.info.run_name == "LR_0.01-AC_ReLU")
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        histories = [client.get_metric_history(run.info.run_id, name) for run in (alone, cell)]
        assert [point.value for point in histories[0]] == [point.value for point in histories[1]]


def test_newcomer_and_champion_are_compared_at_their_own_sizes(swept, client):
    """Each has the score that its own training recorded, on the same split; the p-value is that of these."""
    assert swept.run("train", "--data.limit=120", "--data.image_size=16", "--train.epochs=1").returncode == 0
    newest = client.search_runs(["0"], "tags.step = 'train'", order_by=["attributes.start_time DESC"])[0]
    held = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    champion = client.get_run(held.run_id)
    assert champion.data.params["data.image_size"] == "32"
    result = swept.run("register", f"--register.run_id={newest.info.run_id}")
    assert result.returncode == 0, result.stderr
    (version,) = client.search_model_versions(f"run_id = '{newest.info.run_id}'")
    tags, reason = version.tags, version.tags["champion_reason"]
    ours, theirs = (run.data.metrics["report/accuracy"] for run in (newest, champion))
    assert (float(tags["compared_value"]), float(tags["compared_champion_value"])) == (ours, theirs)
    assert f"accuracy {ours:.4f} against {theirs:.4f} of version {held.version}, the champion" in reason
    assert "the same 24 validation images, each model at its own size (16 and 32 px)" in reason
    assert "may have seen some of these" not in reason, "the split does not depend on the size"
    right, other_right = (rights(run) for run in (newest, champion))
    assert right.keys() == other_right.keys()
    only, only_other = (
        sum(a[name] and not b[name] for name in right)
        for a, b in ((right, other_right), (other_right, right))
    )
    expected = significance.mcnemar(only, only_other)
    assert float(tags["compared_p_value"]) == pytest.approx(expected)
    assert (tags["compared_images"], tags["compared_with_version"]) == ("24", str(held.version))
    assert (tags["objective"], tags["direction"]) == ("accuracy", "maximize")
    assert ("better" if ours > theirs else "not better") == reason.partition(":")[0]
    assert "of no sweep" in version.description


def rights(run) -> dict[str, bool]:
    """Whether a training's model answered each validation image right, as its run recorded it."""
    told = Predictions.from_parquet(artifact(run, f"report/{report.PREDICTIONS}").read_bytes())
    return dict(zip(told.names, told.right.tolist(), strict=True))


def test_main_chains_three_nested_runs(project):
    result = project.run("main", *SMALL)
    assert result.returncode == 0, result.stderr
    client = MlflowClient(project.uri)
    (main,) = client.search_runs(["0"], "tags.step = 'main'")
    nested = client.search_runs(["0"], f"tags.mlflow.parentRunId = '{main.info.run_id}'")
    assert sorted(run.info.run_name for run in nested) == ["evaluate", "prepare", "train"]
    assert {run.info.status for run in [main, *nested]} == {"FINISHED"}
    steps = {run.info.run_name: run for run in nested}
    assert steps["evaluate"].data.tags["evaluated_run_id"] == steps["train"].info.run_id
    assert "test/accuracy" in steps["evaluate"].data.metrics
    assert steps["prepare"].data.metrics["images/train"] == 72  # 0.6 of 120


def test_mlflow_run_passes_any_key_on(tmp_path):
    """Through `mlflow run` itself, from a repository's URI, in an environment that is there already."""
    command = [
        sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "train", "--env-manager", "local",
        "-P", "data.limit=60", "-P", "data.image_size=16", "-P", "train.epochs=1",
        "-P", 'sweep.grid={"dropout":[0.3]}', "-P", f"data.cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = {"MLFLOW_TRACKING_URI": store, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (run,) = MlflowClient(store).search_runs(["0"])
    assert run.data.params["train.epochs"] == "1"
    assert run.data.params["train.batch_size"] == "32"
    assert run.info.run_name == "train"
    assert run.info.status == "FINISHED"
