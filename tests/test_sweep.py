"""Cells, the study that proposes them, and the leaderboard: without a store."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from pipeline.arguments import load
from pipeline.sweep import cells, executor, leaderboard
from pipeline.sweep.cells import Cell
from pipeline.sweep.executor import Outcome
from pipeline.sweep.study import Study
from pipeline.trial import Trial

ROOT = Path(__file__).parents[1]
ORIGINAL = {
    "learning_rate": 0.01,
    "activation": "relu",
    "kernel_initializer": "he_uniform",
    "bias_initializer": 0.0,
}


def grid(*arguments: str):
    return load(arguments, ROOT / "params.yaml").sweep.grid


def outcome(values: dict, accuracy: float, val_loss: float = 0.5, **scores: float) -> Outcome:
    scores = {"accuracy": accuracy, "precision": 0.1, "recall": 0.2, "f1": 0.3} | scores
    return Outcome(Cell(values), Trial("run of " + Cell(values).name, scores, val_loss, 1, False))


def test_default_grid_has_the_original_48_cells():
    names = {cell.name for cell in cells.cells(grid())}
    expected = {
        f"LR_{rate}-KI_{kernel}-AC_{activation}-BI_{bias}"
        for rate in ("0.01", "0.001")
        for kernel in ("he_uniform", "glorot_uniform", "lecun_uniform")
        for activation in ("swish", "Tanh", "LeakyReLU", "ReLU")
        for bias in ("0.0", "0.01")
    }
    assert names == expected
    assert len(expected) == cells.count(grid()) == 48


def test_cell_is_identified_by_sorted_json():
    cell = Cell(ORIGINAL)
    assert cell.name == "LR_0.01-KI_he_uniform-AC_ReLU-BI_0.0"
    assert cell.key == (
        '{"activation": "relu", "bias_initializer": 0.0, '
        '"kernel_initializer": "he_uniform", "learning_rate": 0.01}'
    )


def test_other_keys_stand_for_themselves():
    cell = Cell({"batch_size": 16, "dropout": 0.3, "augment": True, "early_stopping": None})
    assert cell.name == "batch_size_16-dropout_0.3-augment_true-early_stopping_null"


@pytest.mark.parametrize(
    "arguments",
    [[], ['--sweep.grid={"batch_size":[16,64],"augment":[true,false],"early_stopping":[null,3]}']],
)
def test_study_proposes_every_cell_once(arguments):
    study = Study("name", grid(*arguments), seed=42)
    asked = []
    while (cell := study.ask()) is not None:
        asked.append(cell.key)
        study.tell(cell, None if len(asked) % 5 == 0 else 0.5)
    assert sorted(asked) == sorted(cell.key for cell in cells.cells(grid(*arguments)))


def test_study_can_have_several_cells_running():
    study = Study("name", grid(), seed=42)
    running = [study.ask() for _ in range(48)]
    assert study.ask() is None
    assert len({cell.key for cell in running}) == 48
    for cell in reversed(running):
        study.tell(cell, 0.5)


def test_failing_cell_does_not_end_the_sweep():
    waiting = [Cell({"dropout": rate}) for rate in (0.1, 0.2, 0.3)]

    def run_cell(cell: Cell) -> Trial:
        if cell.values["dropout"] == 0.2:
            raise MemoryError("no room")
        return outcome(dict(cell.values), 0.5).trial

    ended = list(executor.outcomes(lambda: waiting.pop(0) if waiting else None, run_cell))
    assert [(one.cell.values["dropout"], one.reason) for one in ended] == [
        (0.1, ""),
        (0.2, "MemoryError: no room"),
        (0.3, ""),
    ]


def test_ranking_is_by_metric_then_loss_then_name():
    outcomes = [
        outcome({"dropout": 0.1}, 0.7, math.nan),
        outcome({"dropout": 0.2}, 0.9, f1=0.1),
        outcome({"dropout": 0.4}, 0.7, 0.4),
        outcome({"dropout": 0.3}, 0.7, 0.4),
        Outcome(Cell({"dropout": 0.6}), None, "reason"),
        outcome({"dropout": 0.5}, 0.7, 0.3),
    ]
    ranking = leaderboard.ranked(outcomes, "accuracy")
    assert [one.cell.values["dropout"] for one in ranking] == [0.2, 0.5, 0.3, 0.4, 0.1]
    assert leaderboard.ranked(outcomes, "f1")[-1].cell.values["dropout"] == 0.2


def test_csv_has_the_contracts_columns():
    rows = list(csv.DictReader(io.StringIO(leaderboard.as_csv([outcome(ORIGINAL, 0.875)]).decode())))
    assert list(rows[0]) == [
        "rank", "name", "learning_rate", "kernel_initializer", "activation", "bias_initializer",
        "accuracy", "precision", "recall", "f1", "run_id",
    ]  # fmt: skip
    assert (rows[0]["rank"], rows[0]["accuracy"], rows[0]["activation"]) == ("1", "0.875", "relu")


@pytest.mark.parametrize(
    ("count", "best", "worst"), [(1, 1, 0), (4, 4, 0), (7, 5, 2), (10, 5, 5), (48, 5, 5)]
)
def test_best_and_worst_share_no_cell(count, best, worst):
    ranking = [outcome({"batch_size": number}, 1 - number / 100) for number in range(1, count + 1)]
    ends = leaderboard.ends(ranking)
    assert [len(end) for end in ends] == [best, worst]
    assert [one.cell.values["batch_size"] for one in ends[1]] == list(range(count - worst + 1, count + 1))
    table = leaderboard.as_console(ranking).splitlines()
    assert len(table) == 1 + best + (1 + worst if worst else 0)
    assert table[-1].split()[:2] == [str(count), str(count)]
    markdown = leaderboard.as_markdown(ranking)
    assert markdown.count("| Batch size |") == (2 if worst else 1)


def test_keys_are_valid_json():
    for cell in cells.cells(grid()):
        assert json.loads(cell.key) == dict(cell.values)
