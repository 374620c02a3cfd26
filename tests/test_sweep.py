"""Cells, the study that proposes them, what a driver plans, its lock, and the leaderboard: without MLflow."""

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
import pytest

from pipeline.config.command_line import load
from pipeline.config.params import Params
from pipeline.execution import lock
from pipeline.runtime.errors import UserError
from pipeline.sweep import cells, leaderboard, plan, progress
from pipeline.sweep.cells import Cell
from pipeline.sweep.order import Rule
from pipeline.sweep.ranking import Ranking
from pipeline.sweep.study import WARM_UP_CELLS, Study
from pipeline.tracking.trials import CellRun, Trial

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ORIGINAL = {
    "learning_rate": 0.01,
    "activation": "relu",
    "kernel_initializer": "he_uniform",
    "bias_initializer": 0.0,
}
SMALL = (
    '--sweep.grid={"learning_rate":[0.1,0.01,0.001],"augment":[true,false],'
    '"early_stopping_patience":[null,3]}'
)
RANGES = (
    '--sweep.grid={"learning_rate":{"low":0.0001,"high":0.1,"log":true},"dropout":{"low":0.2,"high":0.6},'
    '"batch_size":{"low":8,"high":64},"activation":["relu","tanh"]}'
)


def read(*arguments: str) -> Params:
    return load(arguments, ROOT / "params.yaml")


def finished(
    values: dict,
    accuracy: float,
    val_loss: float = 0.5,
    pruned: bool = False,
    epochs: int = 4,
    **scores: float,
) -> CellRun:
    run_id = "run of " + Cell(values).name
    scores = {"accuracy": accuracy, "precision": 0.1, "recall": 0.2, "f1": 0.3} | scores
    return CellRun(run_id, values, "FINISHED", Trial(run_id, scores, val_loss, 1, epochs, False, pruned), "")


def ranking_of(runs: Sequence[CellRun], metric: str = "accuracy", images: int = 0, **more) -> Ranking:
    return Ranking.make(Rule(metric, 0, 1, 42), runs, [], len(runs), images, **{"complete": True, **more})


def begun(values: dict, status: str = "RUNNING") -> CellRun:
    return CellRun(f"{status} run of {Cell(values).name}", values, status, None, "")


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """The URL of a database of Optuna's that is not there yet."""
    return f"sqlite:///{tmp_path / 's.db'}"


def opened(
    params: Params,
    storage: str,
    done: Sequence[CellRun] = (),
    history: Callable[[str], Sequence[float]] = lambda run_id: [],
) -> Study:
    return Study("name", params, storage, done, history)


def asked(
    study: Study, most: int = 1000, known: Callable[[Cell], bool] = lambda cell: False
) -> Iterator[Cell]:
    """The cells that a study proposes, none that it proposed here before, until it has no more."""
    seen = set()
    for _ in range(most):
        cell = study.ask(lambda cell: cell.key in seen or known(cell))
        if cell is None:
            return
        seen.add(cell.key)
        yield cell


def trials(storage: str) -> list[optuna.trial.FrozenTrial]:
    """The trials of the only study in a database, as Optuna's own tools show them."""
    return optuna.load_study(study_name=None, storage=storage).trials


def states(storage: str) -> list[str]:
    return [trial.state.name for trial in trials(storage)]


# Cells


def test_default_grid_has_the_original_48_cells():
    grid = read().sweep.grid
    names = {cell.name for cell in cells.cells(grid)}
    expected = {
        f"LR_{rate}-KI_{kernel}-AC_{activation}-BI_{bias}"
        for rate in ("0.01", "0.001")
        for kernel in ("he_uniform", "glorot_uniform", "lecun_uniform")
        for activation in ("swish", "Tanh", "LeakyReLU", "ReLU")
        for bias in ("0.0", "0.01")
    }
    assert names == expected
    assert len(expected) == cells.count(grid) == 48


def test_cell_is_identified_by_sorted_json():
    cell = Cell(ORIGINAL)
    assert cell.name == "LR_0.01-KI_he_uniform-AC_ReLU-BI_0.0"
    assert cell.key == (
        '{"activation": "relu", "bias_initializer": 0.0, '
        '"kernel_initializer": "he_uniform", "learning_rate": 0.01}'
    )


def test_other_keys_stand_for_themselves():
    cell = Cell({"batch_size": 16, "dropout": 0.3, "augment": True, "early_stopping_patience": None})
    assert set(cell.name.split("-")) == {
        "batch_size_16", "dropout_0.3", "augment_true", "early_stopping_patience_null",
    }  # fmt: skip


def test_cell_read_back_from_its_run_has_the_same_name():
    for cell in cells.cells(
        read('--sweep.grid={"batch_size":[16],"dropout":[0.3],"augment":[true]}').sweep.grid
    ):
        assert Cell(json.loads(cell.key)).name == cell.name


def test_keys_are_valid_json():
    for cell in cells.cells(read().sweep.grid):
        assert json.loads(cell.key) == dict(cell.values)


# The study, sampler grid


def test_grid_proposes_every_cell_once(storage):
    params = read(SMALL)
    study, proposed = opened(params, storage), []
    for cell in asked(study):
        proposed.append(cell.key)
        study.tell(cell, cell.name, None if len(proposed) % 5 == 0 else 0.5)
    assert sorted(proposed) == sorted(cell.key for cell in cells.cells(params.sweep.grid))
    assert len(proposed) == 12
    assert states(storage).count("FAIL") == 2
    assert states(storage).count("COMPLETE") == 10


def test_grid_is_in_the_order_of_optunas_sampler(storage):
    params = read(SMALL)
    space = {key: list(values) for key, values in params.sweep.grid.values().items()}
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(space, seed=params.seed))
    theirs = []
    for _ in range(12):
        trial = study.ask()
        theirs.append({key: trial.suggest_categorical(key, values) for key, values in space.items()})
    assert [cell.values for cell in asked(opened(params, storage))] == theirs


def test_grid_can_have_all_cells_running(storage):
    params = read(SMALL)
    study = opened(params, storage)
    running = list(asked(study))
    assert len({cell.key for cell in running}) == len(running) == 12
    for cell in reversed(running):
        study.tell(cell, cell.name, cell.values["learning_rate"])
    assert states(storage) == ["COMPLETE"] * 12
    assert all(trial.value == trial.params["learning_rate"] for trial in trials(storage))


def test_seed_decides_the_order_of_a_grid(tmp_path):
    def order(seed: int, file: str) -> list[str]:
        study = opened(read(SMALL, f"--seed={seed}"), f"sqlite:///{tmp_path / file}")
        return [cell.key for cell in asked(study)]

    first = order(1, "a.db")
    assert order(1, "b.db") == first
    assert order(2, "c.db") != first


def test_grid_leaves_out_what_is_known_and_keeps_its_order(tmp_path):
    params = read(SMALL)
    every = [cell.key for cell in asked(opened(params, f"sqlite:///{tmp_path / 'a.db'}"))]
    known = {every[0], every[7]}
    study = opened(params, f"sqlite:///{tmp_path / 'b.db'}")
    rest = [cell.key for cell in asked(study, known=lambda cell: cell.key in known)]
    assert rest == [key for key in every if key not in known]


# The study, opened again


def test_study_opened_after_a_crash_ends_what_was_left_and_enters_what_it_lacks(storage):
    params = read('--sweep.grid={"dropout":[0.1,0.2,0.3,0.4]}')
    crashed = opened(params, storage)
    first, second, third = asked(crashed, most=3)
    crashed.tell(first, finished(first.values, 0.7).run_id, 0.7)
    assert states(storage) == ["COMPLETE", "RUNNING", "RUNNING"]

    # `second` was finished, and its driver was killed before it could say so
    done = [finished(first.values, 0.7), finished(second.values, 0.8)]
    for _ in range(2):
        opened(params, storage, done)
        assert states(storage) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    entered = trials(storage)[3]
    assert entered.value == 0.8
    assert entered.params == second.values
    assert entered.user_attrs["run_id"] == done[1].run_id
    assert trials(storage)[0].user_attrs["run_id"] == done[0].run_id
    assert trials(storage)[2].params == third.values


def test_study_opens_after_a_crash_between_enqueueing_a_trial_and_beginning_it(storage):
    params = read('--sweep.grid={"dropout":[0.1,0.2]}')
    opened(params, storage)
    optuna.load_study(study_name=None, storage=storage).enqueue_trial({"dropout": 0.1})
    study = opened(params, storage)
    assert states(storage) == ["FAIL"]
    assert {cell.values["dropout"] for cell in asked(study)} == {0.1, 0.2}


def test_extended_grid_has_the_finished_cells(storage):
    before = opened(read('--sweep.grid={"dropout":[0.1,0.2]}'), storage)
    done = []
    for cell in asked(before):
        done.append(finished(cell.values, cell.values["dropout"]))
        before.tell(cell, done[-1].run_id, done[-1].trial.scores["accuracy"])
    (narrow,) = optuna.get_all_study_names(storage)

    study = opened(read('--sweep.grid={"dropout":[0.1,0.2,0.3]}'), storage, done)
    (extended,) = set(optuna.get_all_study_names(storage)) - {narrow}
    found = optuna.load_study(study_name=extended, storage=storage).trials
    assert [(trial.state.name, trial.params["dropout"], trial.value) for trial in found] == [
        ("COMPLETE", run.values["dropout"], run.values["dropout"]) for run in done
    ]
    known = {Cell(run.values).key for run in done}
    assert [cell.values for cell in asked(study, known=lambda cell: cell.key in known)] == [{"dropout": 0.3}]


def test_finished_cells_outside_the_space_are_not_entered(storage):
    done = [finished({"dropout": 0.9}, 0.5), finished({"dropout": 0.1, "momentum": 0.5}, 0.5)]
    opened(read('--sweep.grid={"dropout":[0.1,0.2]}'), storage, done)
    assert trials(storage) == []


def test_cell_gone_on_with_has_a_trial_where_the_space_has_it(storage):
    study = opened(read('--sweep.grid={"dropout":[0.1,0.2]}'), storage)
    inside, outside = Cell({"dropout": 0.2}), Cell({"dropout": 0.2, "momentum": 0.5})
    assert [study.enqueue(inside), study.enqueue(outside)] == [inside, outside]
    study.report(outside, 1, 0.5)
    assert not study.prunes(outside)
    for cell in (inside, outside):
        study.tell(cell, cell.name, 0.5)
    assert [(trial.state.name, trial.params) for trial in trials(storage)] == [("COMPLETE", {"dropout": 0.2})]


def test_loss_is_minimised_and_a_loss_that_is_no_number_completes_no_trial(storage):
    params = read("--sweep.metric=loss", "--sweep.pruner=median", '--sweep.grid={"dropout":[0.1,0.2,0.3]}')
    study = opened(params, storage)
    for cell, loss in zip(asked(study, most=3), (0.5, math.nan, 0.2), strict=True):
        study.report(cell, 1, loss)
        study.tell(cell, cell.name, loss)
    (name,) = optuna.get_all_study_names(storage)
    found = optuna.load_study(study_name=name, storage=storage)
    assert found.direction == optuna.study.StudyDirection.MINIMIZE
    assert states(storage) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert found.best_value == 0.2
    opened(read('--sweep.grid={"dropout":[0.1,0.2,0.3]}'), storage)  # by another metric: another study
    assert len(optuna.get_all_study_names(storage)) == 2


def test_pruner_ends_the_cell_with_the_higher_loss(storage):
    params = read(
        "--sweep.metric=loss", "--sweep.pruner=median", '--sweep.grid={"dropout":[0,0.1,0.2,0.3,0.4,0.5]}'
    )
    study = opened(params, storage)
    running = asked(study)
    for _ in range(WARM_UP_CELLS):
        cell = next(running)
        assert ends_after(study, cell, [0.5] * 4) is None
        study.tell(cell, cell.name, 0.5)
    assert ends_after(study, next(running), [0.9] * 4) == 1
    assert ends_after(study, next(running), [0.1] * 4) is None


def test_closed_study_has_nothing_running(storage):
    study = opened(read(SMALL), storage)
    assert len(list(asked(study, most=2))) == 2
    study.close()
    assert states(storage) == ["FAIL", "FAIL"]


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/s.db", "nonsense", "nodb://user:secret@host/db"])
def test_database_that_cannot_be_used_is_told(url):
    with pytest.raises(UserError, match=r"^sweep\.storage: .* cannot be used") as error:
        opened(read(), url)
    assert "secret" not in str(error.value)


# The study, samplers random and tpe

DRAWING = pytest.mark.parametrize("sampler", ["random", "tpe"])


def drawing(sampler: str, grid: str) -> Params:
    return read(f"--sweep.sampler={sampler}", "--sweep.n_trials=20", grid)


def drawn(study: Study, count: int) -> list[Cell]:
    """So many cells, each told before the next: small batches are better."""
    found = []
    for cell in asked(study, count):
        study.tell(cell, cell.name, 1 / cell.values["batch_size"])
        found.append(cell)
    return found


@DRAWING
def test_draws_lie_in_their_ranges(sampler, storage):
    # more than the ten random ones that TPE begins with
    found = drawn(opened(drawing(sampler, RANGES), storage), 14)
    assert len({cell.key for cell in found}) == len(found) == 14
    for cell in found:
        assert set(cell.values) == {"learning_rate", "dropout", "batch_size", "activation"}
        assert 0.0001 <= cell.values["learning_rate"] <= 0.1
        assert 0.2 <= cell.values["dropout"] <= 0.6
        assert 8 <= cell.values["batch_size"] <= 64
        assert type(cell.values["batch_size"]) is int
        assert cell.values["activation"] in ("relu", "tanh")


@DRAWING
def test_draws_are_decided_by_seed_and_history(sampler, tmp_path):
    params = drawing(sampler, RANGES)
    one, other = (f"sqlite:///{tmp_path / file}" for file in ("a.db", "b.db"))
    first = drawn(opened(params, one), 6)
    assert drawn(opened(params, other), 6) == first

    after = drawn(opened(params, one), 6)
    assert drawn(opened(params, other), 6) == after
    rates = [cell.values["learning_rate"] for cell in first + after]
    assert len(set(rates)) == 12


@DRAWING
def test_finite_space_ends_before_n_trials(sampler, storage):
    study = opened(drawing(sampler, '--sweep.grid={"batch_size":[8,16],"augment":[true,false]}'), storage)
    found = drawn(study, 20)
    assert sorted((cell.values["batch_size"], cell.values["augment"]) for cell in found) == [
        (8, False), (8, True), (16, False), (16, True),
    ]  # fmt: skip
    assert "RUNNING" not in states(storage)


# The study, pruners


def pruning(pruner: str) -> Params:
    grid = '--sweep.grid={"dropout":[0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8]}'
    return read(f"--sweep.pruner={pruner}", "--train.epochs=4", grid)


def ends_after(study: Study, cell: Cell, values: Sequence[float]) -> int | None:
    """Report a cell's epochs; the one after which it is pruned, or None."""
    for epoch, value in enumerate(values, start=1):
        study.report(cell, epoch, value)
        if study.prunes(cell):
            return epoch
    return None


@pytest.mark.parametrize(("pruner", "expected"), [("median", 1), ("none", None)])
def test_cell_far_behind_is_pruned_after_the_warm_up(pruner, expected, storage):
    study = opened(pruning(pruner), storage)
    running = asked(study)
    for _ in range(WARM_UP_CELLS):
        cell = next(running)
        # far behind those before it, but of too few to be judged by
        assert ends_after(study, cell, [0.9 - len(trials(storage)) / 10] * 4) is None
        study.tell(cell, cell.name, 0.9)

    behind = next(running)
    assert ends_after(study, behind, [0.1] * 4) == expected
    study.tell(behind, behind.name, 0.1, pruned=expected is not None)
    assert trials(storage)[-1].state.name == ("COMPLETE" if expected is None else "PRUNED")

    ahead = next(running)
    assert ends_after(study, ahead, [0.95] * 4) is None


def test_cells_finished_before_are_compared_with_by_their_history(storage):
    params = pruning("median")
    every = cells.cells(params.sweep.grid)
    done = [finished(dict(cell.values), 0.9) for cell in every[:WARM_UP_CELLS]]
    study = opened(params, storage, done, history=lambda run_id: [0.6, 0.7, 0.8, 0.9])
    assert trials(storage)[0].intermediate_values == {1: 0.6, 2: 0.7, 3: 0.8, 4: 0.9}
    known = {Cell(run.values).key for run in done}
    cell = next(asked(study, known=lambda cell: cell.key in known))
    assert ends_after(study, cell, [0.65, 0.75, 0.76, 0.77]) == 3


def test_without_a_pruner_no_history_is_read(storage):
    def history(run_id: str) -> Sequence[float]:
        raise AssertionError(f"{run_id} was asked for")

    opened(read('--sweep.grid={"dropout":[0.1]}'), storage, [finished({"dropout": 0.1}, 0.5)], history)
    assert states(storage) == ["COMPLETE"]


# What a driver plans

GRID = '--sweep.grid={"learning_rate":[0.01,0.001],"dropout":[0.3,0.5]}'
DONE = finished({"learning_rate": 0.01, "dropout": 0.3}, 0.9)
FAILED = begun({"learning_rate": 0.01, "dropout": 0.5}, "FAILED")
BROKEN_OFF = begun({"learning_rate": 0.001, "dropout": 0.3})


@pytest.mark.parametrize(
    ("arguments", "total", "waiting"),
    [
        ([GRID], 4, [BROKEN_OFF, FAILED]),
        (['--sweep.grid={"learning_rate":[0.01,0.001],"dropout":[0.3,0.4,0.5]}'], 6, [BROKEN_OFF, FAILED]),
        # the finished cell is no longer in the grid, and counts all the same
        (['--sweep.grid={"learning_rate":[0.001],"dropout":[0.3,0.5]}'], 3, [BROKEN_OFF]),
        ([GRID, "--sweep.sampler=random", "--sweep.n_trials=7"], 7, [BROKEN_OFF, FAILED]),
        ([GRID, "--sweep.sampler=tpe", "--sweep.n_trials=2"], 3, [BROKEN_OFF, FAILED]),
    ],
    ids=["grid", "extended", "narrower", "more trials", "fewer trials"],
)
def test_plan_counts_what_is_done_and_what_is_left(arguments, total, waiting):
    params = read(*arguments)
    for runs in ([DONE, FAILED, BROKEN_OFF], [BROKEN_OFF, FAILED, DONE]):
        planned = plan.of(params, runs)
        assert planned.total == total
        assert planned.done == [DONE]
        assert planned.open == [Cell(run.values) for run in waiting]
        assert planned.failed == [run for run in waiting if run == FAILED], (
            "of another grid, it is not asked for"
        )
        assert planned.existing[plan.identity(params, FAILED.values)] == FAILED


def test_plan_of_a_new_sweep():
    planned = plan.of(read(), [])
    assert (planned.total, planned.done, planned.open) == (48, [], [])


def test_cell_under_a_further_key_with_the_base_value_is_the_same():
    params = read("--model.dropout=0.5")
    identity = plan.identity(params, {"learning_rate": 0.01})
    assert plan.identity(params, {"learning_rate": 0.01, "dropout": 0.5}) == identity
    assert plan.identity(params, Cell({"dropout": 0.5, "learning_rate": 0.01})) == identity
    assert plan.identity(params, {"learning_rate": 0.01, "dropout": 0.3}) != identity
    assert plan.identity(params, {"learning_rate": 0.01, "schedule.start": 3}) != identity


def test_plan_has_a_cell_once_under_two_names():
    old, new = finished({"learning_rate": 0.01}, 0.9), begun({"learning_rate": 0.01, "dropout": 0.5})
    for runs in ([old, new], [new, old]):
        planned = plan.of(read(GRID, "--model.dropout=0.5"), runs)
        assert (planned.total, planned.done, planned.open) == (4, [old], [])


def test_time_left_counts_the_epochs_of_each_cell(monkeypatch):
    params = read('--sweep.grid={"epochs":[2,10]}')
    planned = plan.of(params, [])
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    epochs = {Cell({"epochs": count}).key: count for count in (2, 10)}
    shown = progress.Progress("accuracy", planned, epochs, usual=4)
    short, long = Cell({"epochs": 2}), Cell({"epochs": 10})
    shown.started(short, 2)
    shown.epoch(short, 1)  # one epoch in one second
    assert shown._seconds_left() == 1 + 10
    shown.ended(short, 0.5, "")
    shown.started(long, 10)
    for epoch in (1, 2, 3):
        shown.epoch(long, epoch)
    assert shown._seconds_left() == 7  # four epochs in four looks at the clock


def test_epochs_are_those_of_the_cell():
    params = read("--train.epochs=4", '--sweep.grid={"epochs":[2,9],"dropout":[0.1]}')
    assert params.epochs_of({"epochs": 9, "dropout": 0.1}) == 9
    assert params.epochs_of({"dropout": 0.1}) == 4
    assert params.most_epochs == 9
    assert read(RANGES, "--sweep.sampler=tpe", "--sweep.n_trials=9").most_epochs == 4
    tuned = read("--model.name=transfer", '--sweep.grid={"fine_tune_epochs":[0,3],"epochs":[1,2]}')
    assert tuned.most_epochs == 5
    assert tuned.epochs_of({"fine_tune_epochs": 3, "epochs": 1}) == 4


def test_sampler_that_has_no_more_cells_leaves_none_pending():
    params = read(GRID, "--sweep.sampler=random", "--sweep.n_trials=7")
    assert plan.of(params, [DONE]).pending == 6
    assert plan.of(params, [DONE], exhausted=True).pending == 0
    assert plan.of(params, [DONE, FAILED], exhausted=True).pending == 0
    assert plan.of(params, [DONE, BROKEN_OFF], exhausted=True).pending == 1


# The lock

HOLD = """
import sys
from pathlib import Path
from pipeline.execution import lock
with lock.study_lock("study", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_driver_is_refused_until_the_first_is_dead(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with first:
        try:
            assert first.stdout.readline() == "held\n"
            refusal = rf"study study: process {first.pid} on .*kill {first.pid}"
            with pytest.raises(UserError, match=refusal), lock.study_lock("study", tmp_path):
                pass
            with lock.study_lock("another", tmp_path):
                pass
        finally:
            first.kill()
            first.wait()
    with lock.study_lock("study", tmp_path):
        pass


# The leaderboard


def rows(ranking: Sequence[CellRun], params: Params) -> list[dict[str, str]]:
    table = leaderboard.Table(ranking_of(ranking), params)
    return list(csv.DictReader(io.StringIO(table.as_csv().decode())))


def test_ranking_is_by_metric_then_loss_then_name():
    runs = [
        finished({"dropout": 0.1}, 0.7, math.nan),
        finished({"dropout": 0.2}, 0.9, f1=0.1),
        finished({"dropout": 0.4}, 0.7, 0.4),
        finished({"dropout": 0.3}, 0.7, 0.4),
        finished({"dropout": 0.5}, 0.7, 0.3),
    ]
    ranking = ranking_of(runs)
    assert [run.values["dropout"] for run in ranking.cells] == [0.2, 0.5, 0.3, 0.4, 0.1]
    assert ranking_of(runs, "f1").cells[-1].values["dropout"] == 0.2


def test_csv_has_the_contracts_columns():
    (row,) = rows([finished(ORIGINAL, 0.875)], read())
    assert list(row) == [
        "rank", "name", "learning_rate", "kernel_initializer", "activation", "bias_initializer",
        "accuracy", "precision", "recall", "f1", "run_id",
    ]  # fmt: skip
    assert list(row.values()) == [
        "1", "LR_0.01-KI_he_uniform-AC_ReLU-BI_0.0", "0.01", "he_uniform", "relu", "0.0",
        "0.875", "0.1", "0.2", "0.3", "run of LR_0.01-KI_he_uniform-AC_ReLU-BI_0.0",
    ]  # fmt: skip


def test_csv_tells_a_key_from_the_score_of_its_name():
    (row,) = rows([finished({"precision": "float32"}, 0.875)], read())
    assert (row["train.precision"], row["precision"]) == ("float32", "0.1")


@pytest.mark.parametrize(
    ("arguments", "pruned", "epochs"),
    [
        ([], False, None),
        ([], True, ["4", "2"]),
        (["--sweep.pruner=median"], False, ["4", "4"]),
        (["--sweep.pruner=median"], True, ["4", "2"]),
    ],
)
def test_epochs_stand_beside_where_cells_can_be_pruned(arguments, pruned, epochs):
    ranking = [
        finished({"dropout": 0.1}, 0.9),
        finished({"dropout": 0.2}, 0.5, pruned=pruned, epochs=2 if pruned else 4),
    ]
    found = rows(ranking, read(*arguments))
    assert list(found[0])[-3:] == (
        ["recall", "f1", "run_id"] if epochs is None else ["f1", "epochs", "run_id"]
    )
    assert [row.get("epochs") for row in found] == (epochs or [None, None])
    table = leaderboard.Table(ranking_of(ranking), read(*arguments))
    assert ("2 (pruned)" in table.as_console()) == pruned
    assert ("Epochs" in table.as_console()) == ("| Epochs |" in table.as_markdown()) == (epochs is not None)


def test_cell_without_a_further_key_shows_the_value_in_force():
    ranking = [
        finished({"learning_rate": 0.1, "dropout": 0.3, "schedule.start": 2}, 0.9),
        finished({"learning_rate": 0.01}, 0.5),
    ]
    params = read("--model.dropout=0.45", "--train.schedule.start=7")
    table = [{key: row[key] for key in list(row)[2:5]} for row in rows(ranking, params)]
    assert table == [
        {"learning_rate": "0.1", "dropout": "0.3", "schedule.start": "2"},
        {"learning_rate": "0.01", "dropout": "0.45", "schedule.start": "7"},
    ]


@pytest.mark.parametrize(
    ("count", "best", "worst"), [(1, 1, 0), (4, 4, 0), (7, 5, 2), (10, 5, 5), (48, 5, 5)]
)
def test_best_and_worst_share_no_cell(count, best, worst):
    ranking = [finished({"batch_size": number}, 1 - number / 100) for number in range(1, count + 1)]
    ends = leaderboard.ends(ranking)
    assert [len(end) for end in ends] == [best, worst]
    assert [run.values["batch_size"] for run in ends[1]] == list(range(count - worst + 1, count + 1))
    table = leaderboard.Table(ranking_of(ranking), read())
    lines = table.as_console().splitlines()
    assert len(lines) == 1 + best + worst + ("…" in lines)
    assert ("…" in lines) == (best + worst < count)
    assert lines[-1].split()[:2] == [str(count), str(count)]
    assert table.as_markdown().count("| Batch size |") == (2 if worst else 1)
