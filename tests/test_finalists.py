"""Finalists: which cells are trained again, and what ranks them; and how sure the winner is."""

import csv
import io
import json
import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import ROOT, Project, cell_runs, leaderboard, sweep_run
from mlflow import MlflowClient

from pipeline.config.command_line import load
from pipeline.config.params import Params
from pipeline.evaluation import intervals, significance
from pipeline.inference import report
from pipeline.runtime.errors import Interrupted, UserError
from pipeline.steps import sweep
from pipeline.sweep import finalists, verdict
from pipeline.sweep import leaderboard as board
from pipeline.sweep.cells import Cell
from pipeline.sweep.order import Rule
from pipeline.sweep.ranking import Ranking
from pipeline.tracking.trials import CellRun, Trial

pytestmark = pytest.mark.slow

GRID = '--sweep.grid={"dropout":[0.1,0.2,0.3,0.4]}'


def read(*arguments: str) -> Params:
    return load([GRID, *arguments], ROOT / "params.yaml")


def finished(
    values: dict, accuracy: float, pruned: bool = False, run_id: str = "", loss: float = 0.5
) -> CellRun:
    run_id = run_id or "run of " + Cell(values).name
    scores = dict.fromkeys(("precision", "recall", "f1", "macro_f1"), 0.25)
    scores |= {"accuracy": accuracy, "loss": loss}
    return CellRun(run_id, values, "FINISHED", Trial(run_id, scores, 0.5, 1, 4, False, pruned), "")


def again(dropout: float, seed: int, accuracy: float) -> CellRun:
    return finished({"dropout": dropout, "seed": seed}, accuracy)


CELLS = [
    finished({"dropout": 0.1}, 0.70),
    finished({"dropout": 0.2}, 0.90),
    finished({"dropout": 0.3}, 0.95, pruned=True),
    finished({"dropout": 0.4}, 0.80),
]
FAILED = CellRun("f", {"dropout": 0.9}, "FAILED", None, "a bug")


# Which cells, which seeds


def names(cells: Sequence[Cell]) -> list[str]:
    return [cell.name for cell in cells]


def test_best_cells_that_were_not_pruned_are_trained_with_the_seeds_that_follow():
    planned = finalists.planned(read("--sweep.finalists=2", "--seed=7"), CELLS, [])
    assert names(planned.open) == [
        "dropout_0.2-seed_8", "dropout_0.4-seed_8", "dropout_0.2-seed_9", "dropout_0.4-seed_9",
    ]  # fmt: skip
    assert (planned.total, planned.done) == (4, [])
    assert finalists.planned(read(), CELLS, []).total == 0
    assert finalists.planned(read("--sweep.finalists=9"), CELLS, []).total == 6


def test_seeds_follow_that_of_the_training():
    assert Rule.of(read("--seed=7", "--train.seed=100")).fresh_seeds == [101, 102]
    assert Rule.of(read(f"--seed={2**32 - 1}")).fresh_seeds == [0, 1]


def test_repeat_has_another_seed_and_the_same_splits():
    params = read("--seed=7")
    (cell, *_) = finalists.planned(read("--seed=7", "--sweep.finalists=1"), CELLS, []).open
    assert params.with_cell(cell.values).training_seed == 8
    assert params.with_cell(cell.values).seed == params.training_seed == 7


def test_only_what_is_missing_is_planned():
    params = read("--sweep.finalists=2")
    begun = CellRun("r", {"dropout": 0.4, "seed": 43}, "KILLED", None, "")
    old = again(0.1, 43, 0.7)  # of a finalist that is none any more
    planned = finalists.planned(params, CELLS, [old, begun, again(0.2, 43, 0.9)])
    assert names(planned.open) == ["dropout_0.4-seed_43", "dropout_0.2-seed_44", "dropout_0.4-seed_44"]
    assert (planned.total, len(planned.done), planned.begun) == (4, 1, [begun])
    # a new cell is better than both: one of them is a finalist no more
    longer = read("--sweep.finalists=2", "--sweep.grid.dropout=[0.1,0.2,0.3,0.4,0.6]")
    cells = [*CELLS, finished({"dropout": 0.6}, 0.99)]
    planned = finalists.planned(longer, cells, [again(0.2, seed, 0.9) for seed in (43, 44)])
    assert names(planned.open) == ["dropout_0.6-seed_43", "dropout_0.6-seed_44"]


def test_seed_is_not_swept_as_well():
    with pytest.raises(UserError, match=r"finalists is 2.*sweep\.grid\.seed.*finalists to 0"):
        read("--sweep.finalists=2", "--sweep.grid.seed=[1,2]")
    assert load(["--sweep.grid.seed=[1,2]"], ROOT / "params.yaml").sweep.grid.seed == (1, 2)


# What ranks them

REPEATS = [again(0.2, 43, 0.6), again(0.2, 44, 0.6), again(0.4, 43, 0.82), again(0.4, 44, 0.84)]


def ranked(params: Params, repeats: Sequence[CellRun], cells: Sequence[CellRun] = CELLS, images: int = 100):
    return Ranking.make(Rule.of(params), cells, repeats, len(cells), images, complete=True)


def test_means_over_fresh_seeds_rank_the_finalists_and_the_others_follow():
    """The seed that chose the finalists, 0.9 and 0.8, has no part in their means."""
    ranking = ranked(read("--sweep.finalists=2"), REPEATS)
    assert [run.values["dropout"] for run in ranking.cells] == [0.4, 0.2, 0.3, 0.1]
    assert [ranking.value(run) for run in ranking.cells] == pytest.approx([0.83, 0.6, 0.95, 0.7])
    best, second = ranking.finalists
    assert (best.seeds, best.scores("accuracy")) == ((43, 44), [0.82, 0.84])
    assert best.spread("accuracy") == pytest.approx(statistics.stdev([0.82, 0.84]))
    assert (second.mean("accuracy"), second.spread("accuracy")) == (pytest.approx(0.6), 0)


def test_means_of_equal_cells_are_not_too_high():
    """48 equal cells, scores of mean 0: fresh seeds alone estimate what the winner is worth."""
    rng, params = np.random.default_rng(0), read("--sweep.finalists=3")
    means = []
    for _ in range(200):
        cells = [finished({"dropout": number}, float(rng.normal())) for number in range(48)]
        chosen = finalists.selected(Rule.of(params), cells)
        repeats = [
            again(run.values["dropout"], seed, float(rng.normal())) for run in chosen for seed in (43, 44)
        ]
        means += [one.mean("accuracy") for one in ranked(params, repeats, cells).finalists]
    # three standard errors; with the selecting seed among three, it would be 0.65
    assert abs(statistics.fmean(means)) < 3 * math.sqrt(1 / 2 / len(means))


def test_until_all_have_the_same_seeds_one_ranks_them():
    params = read("--sweep.finalists=2")
    for repeats in (REPEATS[:3], []):
        ranking = ranked(params, repeats)
        assert not ranking.by_mean
        assert [run.values["dropout"] for run in ranking.cells] == [0.3, 0.2, 0.4, 0.1]
    both = ranked(params, [run for run in REPEATS if run.values["seed"] == 43])
    assert [one.mean("accuracy") for one in both.finalists] == [0.82, 0.6]
    assert both.by_mean and [one.spread("accuracy") for one in both.finalists] == [None, None]


def test_lowest_mean_loss_wins():
    cells = [finished({"dropout": 0.1}, 0.9, loss=0.3), finished({"dropout": 0.2}, 0.8, loss=0.2)]
    repeats = [
        finished({"dropout": dropout, "seed": 43}, 0.5, loss=loss)
        for dropout, loss in ((0.1, 0.4), (0.2, 0.5))
    ]
    params = read("--sweep.finalists=2", "--sweep.repeats=1", "--sweep.metric=loss")
    assert [run.values["dropout"] for run in ranked(params, [], cells).cells] == [0.2, 0.1]
    assert [run.values["dropout"] for run in ranked(params, repeats, cells).cells] == [0.1, 0.2]


@pytest.mark.parametrize("repeats", [[], REPEATS[:1], REPEATS])
def test_stored_ranking_is_read_back_whole(repeats):
    cells = [*CELLS, finished({"dropout": 0.5}, 0.1, loss=math.nan), FAILED]
    ranking = ranked(read("--sweep.finalists=2"), repeats, cells)
    content = ranking.as_json()
    found = Ranking.from_json(content)
    assert found.as_json() == content
    assert [run.run_id for run in found.cells] == [run.run_id for run in ranking.cells]
    assert (found.finalists, found.failed) == (ranking.finalists, ranking.failed)
    assert json.loads(content)["cells"][-1]["scores"]["loss"] is None, "NaN is no JSON"
    assert [one["rank"] for one in json.loads(content)["cells"]] == [1, 2, 3, 4, 5]


def rows(table: board.Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.as_csv().decode())))


def test_leaderboard_has_the_means_where_there_are_finalists():
    params = read("--sweep.finalists=2")
    table = board.Table(ranked(params, REPEATS), params)
    first, second, third, _ = rows(table)
    assert list(first)[-6:] == [
        "repeats", "accuracy_mean", "accuracy_spread", "accuracy_low", "accuracy_high", "run_id"
    ]  # fmt: skip
    assert (first["repeats"], float(first["accuracy_mean"])) == ("2", pytest.approx(0.83))
    assert float(first["accuracy_spread"]) == pytest.approx(statistics.stdev([0.82, 0.84]))
    interval = pytest.approx(intervals.wilson(83, 100))
    assert (float(first["accuracy_low"]), float(first["accuracy_high"])) == interval
    assert float(second["accuracy"]) == 0.9 and float(second["accuracy_mean"]) == pytest.approx(0.6)
    assert (third["repeats"], third["accuracy_mean"], third["accuracy_spread"]) == ("0", "", "")
    assert (float(third["accuracy_low"]), float(third["accuracy_high"])) == intervals.wilson(95, 100)
    assert "0.8300 ± 0.0141 (2)" in table.as_console() and "| Fresh seeds |" in table.as_markdown()


@pytest.mark.parametrize("metric", ["macro_f1", "macro_precision"])
def test_macro_average_that_ranks_is_in_the_leaderboard(metric):
    runs = [finished({"dropout": value}, 0.9) for value in (0.1, 0.2)]
    for run, value in zip(runs, (0.3, 0.6), strict=True):
        run.trial.scores[metric] = value
    params = read(f"--sweep.metric={metric}")
    ranking = ranked(params, [], runs)
    assert [run.values["dropout"] for run in ranking.cells] == [0.2, 0.1]
    found = rows(board.Table(ranking, params))
    assert list(found[0])[-3:] == ["f1", metric, "run_id"]
    assert [float(row[metric]) for row in found] == [0.6, 0.3]


# The verdict, from runs made by hand in a store of their own

PICTURES = 400
NAMES = [f"{number}.jpg" for number in range(PICTURES)]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        yield MlflowClient().create_experiment("verdicts", artifact_location=str(folder / "artifacts"))
        mlflow.set_tracking_uri(None)


def answered(experiment: str, dropout: float, right: np.ndarray, order: np.ndarray, **changes) -> CellRun:
    """A cell's run whose answers are right where told, its images in some order."""
    labels = np.arange(PICTURES) % 2
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
    names = changes.get("names", NAMES)
    with mlflow.start_run(experiment_id=experiment) as run:
        if changes.get("logged", True):
            content = report.predictions(
                ("cat", "dog"), [names[row] for row in order], labels[order], probabilities[order]
            )
            place = Path(run.info.artifact_uri.removeprefix("file://"), "report")
            place.mkdir(parents=True)
            (place / report.PREDICTIONS).write_bytes(content)
    return finished({"dropout": dropout}, float(right.mean()), run_id=run.info.run_id)


def as_ranked(cells: Sequence[CellRun], metric: str = "accuracy") -> Ranking:
    """These cells in this order, as if ranked."""
    return Ranking(Rule(metric, 0, 1, 42), tuple(cells), (), (), len(cells), PICTURES, True)


def right_but(*wrong: slice) -> np.ndarray:
    right = np.ones(PICTURES, bool)
    for rows_ in wrong:
        right[rows_] = False
    return right


def test_verdict_names_those_that_are_not_significantly_worse(experiment):
    forward, backward = np.arange(PICTURES), np.arange(PICTURES)[::-1]
    # the winner has 40 wrong; a close one 50, of which 30 are the same; a far one 100; a hopeless one 200
    ranking = [
        answered(experiment, 0.1, right_but(slice(0, 40)), forward),
        answered(experiment, 0.2, right_but(slice(10, 60)), backward),
        answered(experiment, 0.3, right_but(slice(0, 100)), forward),
        answered(experiment, 0.4, right_but(slice(0, 200)), forward, logged=False),
    ]
    found = verdict.of(as_ranked(ranking))
    p_value = significance.mcnemar(20, 10)
    assert found["not_significantly_worse"] == [
        {
            "run_id": ranking[1].run_id, "name": "dropout_0.2", "p_value": p_value,
            "corrected_p_value": pytest.approx(6 * p_value), "only_winner_right": 20, "only_other_right": 10,
        }
    ]  # fmt: skip
    assert found["winner"] == {"run_id": ranking[0].run_id, "name": "dropout_0.1"}
    assert (found["compared"], found["images"], found["alpha"]) == (3, PICTURES, 0.05)
    assert (found["metric"], found["finalists"], found["ranked_by_mean"]) == ("accuracy", [], False)
    low, high = intervals.wilson(360, PICTURES)
    assert verdict.lines(found) == [
        f"accuracy of the best: 0.9000 on 400 validation images (95 % interval {low:.3f} to {high:.3f})",
        "1 other is not significantly worse (McNemar, alpha = 0.05, Bonferroni over all pairs): dropout_0.2",
    ]
    assert json.loads(verdict.as_json(found))["interval"] == [low, high]

    alone = verdict.of(as_ranked([ranking[0], ranking[2]]))
    assert alone["not_significantly_worse"] == []
    said = "every other cell is significantly worse (McNemar, alpha = 0.05, Bonferroni over all pairs)"
    assert verdict.lines(alone)[1] == said
    # by another metric: the second is right more often, so the first is not better
    other = verdict.of(as_ranked([ranking[2], ranking[0]], "f1"))
    assert [entry["run_id"] for entry in other["not_significantly_worse"]] == [ranking[0].run_id]
    assert other["not_significantly_worse"][0]["p_value"] < 0.001


def test_verdict_goes_by_the_metric_that_ranks(experiment):
    """By macro F1 the second is as good as the first, the third is worse."""
    order, rng = np.arange(PICTURES), np.random.default_rng(0)
    ranking = [
        answered(experiment, dropout, rng.random(PICTURES) < share, order)
        for dropout, share in ((0.1, 0.9), (0.2, 0.89), (0.3, 0.6))
    ]
    for run, score in zip(ranking, (0.9, 0.89, 0.6), strict=True):
        run.trial.scores["macro_f1"] = score
    found = verdict.of(as_ranked(ranking, "macro_f1"))
    assert [entry["run_id"] for entry in found["not_significantly_worse"]] == [ranking[1].run_id]
    assert (found["metric"], found["compared"]) == ("macro_f1", 2)
    method = "paired bootstrap of macro_f1, alpha = 0.05, Bonferroni over all pairs"
    assert verdict.lines(found)[1] == f"1 other is not significantly worse ({method}): dropout_0.2"


def test_cell_whose_answers_are_gone_or_of_other_names_is_not_compared(experiment):
    order = np.arange(PICTURES)
    ranking = [
        answered(experiment, 0.1, right_but(slice(0, 40)), order),
        answered(experiment, 0.2, right_but(slice(10, 60)), order, logged=False),
        answered(experiment, 0.3, right_but(slice(10, 60)), order, names=[f"new/{name}" for name in NAMES]),
    ]
    found = verdict.of(as_ranked(ranking))
    assert (found["compared"], found["not_significantly_worse"]) == (0, [])
    assert len(verdict.lines(found)) == 1
    assert verdict.of(as_ranked(ranking[:1]))["compared"] == 0


# A real sweep, in this process

TINY = (
    "--data.limit=60", "--data.image_size=16", "--train.epochs=2", "--sweep.workers=1",
    '--sweep.grid={"bias_initializer":[0.0,0.01,0.02]}', "--sweep.finalists=2",
)  # fmt: skip


def repeats_of(project: Project) -> dict[str, object]:
    runs = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'finalist'")
    assert len({run.info.run_name for run in runs}) == len(runs), "each seed of a finalist has one run"
    return {run.info.run_name: run for run in runs}


def verdict_of(project: Project) -> dict:
    folder = sweep_run(project).info.artifact_uri.removeprefix("file://")
    return json.loads(Path(folder, "verdict.json").read_text())


def test_finalists_are_trained_again_once(project, monkeypatch, capsys):
    monkeypatch.chdir(project.path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    mlflow.set_tracking_uri(project.uri)
    try:
        ranking = sweep.run(load([*TINY, "--sweep.repeats=1"]))
        first, cells = repeats_of(project), cell_runs(project)
        assert len(cells) == 3 and len(first) == 2
        assert sweep_run(project).data.metrics["cells/total"] == 3
        for name, run in first.items():
            cell = cells[name.removesuffix("-seed_43")]
            assert run.data.tags["finalist_of"] == cell.info.run_id
            assert (run.data.params["seed"], run.data.params["train.seed"]) == ("42", "43")
            assert run.inputs.dataset_inputs[0].dataset.digest == cell.inputs.dataset_inputs[0].dataset.digest
            assert run.data.metrics["loss"] != cell.data.metrics["loss"]
        told = verdict_of(project)
        assert [one["seeds"] for one in told["finalists"]] == [[43]] * 2
        assert (
            told["winner"]["run_id"] == ranking.winner.run_id == sweep_run(project).data.tags["best_run_id"]
        )
        assert [one["run_id"] for one in told["finalists"]] == [run.run_id for run in ranking.cells[:2]]
        means = [one["mean"] for one in told["finalists"]]
        assert means == sorted(means, reverse=True)
        assert [row["repeats"] for row in leaderboard(sweep_run(project))] == ["1", "1", "0"]

        # again: nothing is trained; stopped in the middle of further repeats, and gone on with
        assert sweep.run(load([*TINY, "--sweep.repeats=1"])) == ranking
        more = load([*TINY, "--sweep.repeats=2"])
        threading.Thread(target=stop_when, args=[lambda: len(repeats_of(project)) > 2], daemon=True).start()
        with pytest.raises(Interrupted):
            sweep.run(more)
        assert "of 4 repeats of the finalists finished" in capsys.readouterr().out
        sweep.run(load([*TINY, "--sweep.repeats=2", "--sweep.dry_run=true"]))
        assert "4 repeats, " in capsys.readouterr().out
        sweep.run(more)
        after = repeats_of(project)
        assert {run.info.status for run in after.values()} == {"FINISHED"}
        assert len(after) == 4 and {run.data.params["train.seed"] for run in after.values()} == {"43", "44"}
        for name, run in first.items():
            assert after[name].info.end_time == run.info.end_time
        for run in after.values():
            history = MlflowClient(project.uri).get_metric_history(run.info.run_id, "loss")
            assert [point.step for point in history] == [1, 2]
        assert cell_runs(project).keys() == cells.keys()
    finally:
        mlflow.set_tracking_uri(None)


def stop_when(condition) -> None:
    while not condition():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
