"""Sweeps read back from a store: which one is resumed, which runs count, who drives, and the one ranking.

The runs are made by hand in a real store; nothing is trained.
"""

import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient

from pipeline.config.command_line import load
from pipeline.config.params import Params
from pipeline.execution import lock
from pipeline.execution.executors import InProcessExecutor
from pipeline.runtime import hardware
from pipeline.runtime.errors import TakenOver, UserError
from pipeline.sweep import identity, outcome, ranking
from pipeline.sweep.context import Backend, SweepContext
from pipeline.sweep.order import Rule
from pipeline.tracking import runs, sweep_runs
from pipeline.tracking.sweep_runs import Sweep
from pipeline.training import mixed_precision

ROOT = Path(__file__).parents[1]
GRID = '--sweep.grid={"learning_rate":[0.01,0.001]}'


def read(*arguments: str) -> Params:
    return load(["--data.image_size=64", *arguments], ROOT / "params.yaml")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[MlflowClient]:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        MlflowClient().create_experiment("sweeps", artifact_location=str(folder / "artifacts"))
        yield MlflowClient()
        mlflow.set_tracking_uri(None)


@pytest.fixture
def client(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the store, whose experiment is the one in use."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "sweeps")
    return store


def started(client: MlflowClient, params: Params, digest: str, asked: Params | None = None) -> Sweep:
    """The run of a sweep that was started with these parameters, as `session.open_sweep` makes it."""
    name = identity.study_name(asked or params, digest)
    tags = {"step": "sweep", "study": name, "format": sweep_runs.FORMAT, sweep_runs.DATA: digest}
    tags |= identity.tags(asked or params, None) | Rule.of(params).tags
    run = client.create_run(experiment(client), tags=tags, run_name="sweep")
    for key, value in params.flat().items():
        client.log_param(run.info.run_id, key, runs.as_text(value))
    return Sweep.from_run(client.get_run(run.info.run_id))


def experiment(client: MlflowClient) -> str:
    return client.get_experiment_by_name("sweeps").experiment_id


def trained(client: MlflowClient, run_id: str, accuracy: float, **scores: float) -> str:
    """Record in a run that its training finished."""
    names = ("precision", "recall", "f1", "macro_f1", "loss")
    for name, value in (dict.fromkeys(names, 0.25) | {"accuracy": accuracy} | scores).items():
        client.log_metric(run_id, f"report/{name}", value)
    for key, value in {"best_epoch": "1", "best_val_loss": "0.5", "epochs": "4"}.items():
        client.set_tag(run_id, key, value)
    client.set_terminated(run_id, "FINISHED")
    return run_id


# Which study is resumed


def test_study_does_not_change_with_a_timing_or_a_network_added(client, monkeypatch):
    monkeypatch.setattr(hardware, "precision", lambda: ("mixed_bfloat16", "this test says so"))
    monkeypatch.setattr(hardware, "gpus", list)
    monkeypatch.setattr(mixed_precision, "_time_ratio", lambda: 0.6)
    asked = read('--sweep.grid={"name":["simple_cnn"]}')
    params, _ = mixed_precision.resolve(asked)
    assert params.train.precision == "mixed_bfloat16"
    sweep = started(client, params, "timing", asked)

    monkeypatch.setattr(
        mixed_precision, "_time_ratio", lambda: 0.88
    )  # a new container, without what was measured
    wider = read('--sweep.grid={"name":["simple_cnn","small_resnet"]}')
    for again in (asked, wider):
        found = identity.find(again, "timing")
        assert found.run_id == sweep.run_id
        assert identity.resumed(again, found).train.precision == "mixed_bfloat16"
    assert (
        identity.find(read('--sweep.grid={"name":["simple_cnn"]}', "--train.precision=float32"), "timing")
        is None
    )
    assert identity.find(asked, "other images") is None


def test_base_value_of_a_swept_key_is_no_part_of_the_study(client):
    sweep = started(client, read(GRID, "--train.precision=float32"), "base")
    same = "--train.precision=float32"
    other_base = identity.find(read(GRID, same, "--train.learning_rate=0.5"), "base")
    assert other_base.run_id == sweep.run_id
    # the sweep's own base value is in force for cells that do not name the key
    assert identity.resumed(read(GRID, same, "--train.learning_rate=0.5"), sweep).train.learning_rate == 0.01
    further = '--sweep.grid={"learning_rate":[0.01],"dropout":[0.5,0.4]}'
    assert identity.find(read(further, same), "base").run_id == sweep.run_id
    assert identity.find(read(further, same, "--model.dropout=0.2"), "base") is None
    for changed in ("--seed=7", "--train.batch_size=16", "--model.dropout=0.2"):
        assert identity.find(read(GRID, same, changed), "base") is None
    # a key that the network does not have
    assert identity.find(read(GRID, same, "--model.fine_tune_layers=7"), "base").run_id == sweep.run_id


def test_value_typed_otherwise_is_the_same(client):
    """`mlflow run -P train.momentum=9e-1` logs what was typed."""
    params = read(GRID, "--train.precision=float32")
    sweep = started(client, params, "typed")
    typed = client.create_run(experiment(client), tags=dict(sweep.tags), run_name="sweep")
    client.set_terminated(typed.info.run_id)
    for key, value in params.flat().items():
        text = "9e-1" if key == "train.momentum" else runs.as_text(value)
        client.log_param(typed.info.run_id, key, text)
    client.delete_run(sweep.run_id)
    assert identity.find(params, "typed").run_id == typed.info.run_id
    assert identity.resumed(params, identity.find(params, "typed")).train.momentum == 0.9


def test_sweep_of_a_network_that_is_gone_is_another_study(client):
    sweep = started(client, read(GRID), "gone")
    gone = client.create_run(experiment(client), tags=dict(sweep.tags), run_name="sweep")
    for key, value in read(GRID).flat().items():
        client.log_param(gone.info.run_id, key, "tiny" if key == "model.name" else runs.as_text(value))
    assert identity.find(read(GRID), "gone").run_id == sweep.run_id


def test_of_two_drivers_that_begin_a_study_at_once_the_older_run_has_it(client):
    params = read(GRID)
    first, second = (started(client, params, "at once") for _ in range(2))
    assert identity.oldest(params, "at once").run_id == first.run_id
    client.set_tag(second.run_id, "step", "refused")
    assert identity.find(params, "at once").run_id == first.run_id


# Which runs count


def test_reading_a_sweep_deletes_nothing(client):
    sweep = started(client, read(GRID), "doubles")
    value = '{"learning_rate": 0.01}'
    kept = trained(client, sweep.new_cell("cell", value), 0.9)
    full = trained(client, sweep.new_cell("cell", value), 0.95)
    begun = sweep.new_cell("cell", value)
    client.log_param(begun, "seed", "42")
    empty = sweep.new_cell("cell", value)
    assert [cell.run_id for cell in sweep.cells()] == [kept]

    def active() -> set[str]:
        found = client.search_runs(
            [experiment(client)], f"tags.study = '{sweep.study}' AND tags.step = 'cell'"
        )
        return {run.info.run_id for run in found}

    assert active() == {kept, full, begun, empty}
    sweep.delete_empty_duplicates()  # the driver, under its lock
    assert active() == {kept, full, begun}


# The one ranking


def test_finalists_means_rank_wherever_the_ranking_is_read(client):
    params = read(GRID, "--sweep.finalists=2", "--sweep.repeats=1")
    sweep = started(client, params, "means")
    first = trained(client, sweep.new_cell("A", '{"learning_rate": 0.01}'), 0.90)
    second = trained(client, sweep.new_cell("B", '{"learning_rate": 0.001}'), 0.89)
    assert ranking.of(sweep).winner.run_id == first
    trained(client, sweep.new_finalist("A2", '{"learning_rate": 0.01, "seed": 43}', first), 0.60)
    assert ranking.of(sweep).winner.run_id == first, "until both have the same seeds, one ranks them"
    trained(client, sweep.new_finalist("B2", '{"learning_rate": 0.001, "seed": 43}', second), 0.88)
    made = ranking.of(sweep)
    assert made.winner.run_id == second and made.by_mean and not made.complete
    assert [one.mean("accuracy") for one in made.finalists] == [0.88, 0.60]


def test_stored_ranking_is_read_until_another_cell_has_ended(client):
    params = read(GRID)
    sweep = started(client, params, "stored")
    trained(client, sweep.new_cell("A", '{"learning_rate": 0.01}'), 0.90)
    stored = ranking.Ranking.make(Rule.of(params), sweep.cells(), [], 1, 100, complete=True)
    client.log_text(sweep.run_id, stored.as_json().decode(), ranking.FILE)
    assert not ranking.of(sweep).complete, "it was started again, and killed before another cell had ended"
    client.set_tag(sweep.run_id, sweep_runs.COMPLETE, "true")
    sweep = Sweep.from_run(client.get_run(sweep.run_id))
    assert ranking.of(sweep) == stored
    better = trained(client, sweep.new_cell("B", '{"learning_rate": 0.001}'), 0.95)
    made = ranking.of(sweep)
    assert (made.winner.run_id, made.complete, len(made.cells)) == (better, False, 2)
    client.delete_run(better)
    assert ranking.of(sweep) == stored
    client.log_text(sweep.run_id, stored.as_json().decode()[:50], ranking.FILE)  # a store killed amid writing
    assert ranking.of(sweep).winner == stored.winner


def test_ranked_by_another_metric_another_cell_wins(client):
    sweep = started(client, read(GRID), "metrics")
    accurate = trained(client, sweep.new_cell("A", '{"learning_rate": 0.01}'), 0.95, macro_f1=0.5, loss=0.9)
    fair = trained(client, sweep.new_cell("B", '{"learning_rate": 0.001}'), 0.90, macro_f1=0.8, loss=0.3)
    assert ranking.of(sweep).winner.run_id == accurate
    for metric in ("macro_f1", "loss"):
        rule = Rule.of(read(GRID, f"--sweep.metric={metric}"))
        client.set_tag(sweep.run_id, *next(iter(rule.tags.items())))
        found = ranking.of(Sweep.from_run(client.get_run(sweep.run_id)))
        assert (found.winner.run_id, found.objective.name) == (fair, metric)


def test_cells_without_the_metric_cannot_be_ranked_by_it(client):
    sweep = started(client, read(GRID), "lacking")
    run_id = trained(client, sweep.new_cell("A", '{"learning_rate": 0.01}'), 0.95)
    client.set_tag(sweep.run_id, *next(iter(Rule("mine", 0, 1, 42).tags.items())))
    with pytest.raises(
        UserError, match=rf"got mine, which 1 finished cell .* \(run {run_id}\); .*sweep\.restart=true"
    ):
        ranking.of(Sweep.from_run(client.get_run(sweep.run_id)))


def test_newest_sweep_is_the_one_started_last_whatever_its_state(client):
    first, second = (started(client, read(GRID), f"newest {n}") for n in (1, 2))
    client.set_terminated(second.run_id, "FAILED")
    assert sweep_runs.latest_sweep().run_id == second.run_id
    client.set_tag(first.run_id, sweep_runs.STARTED, str(second.started + 1))  # it was resumed
    assert sweep_runs.latest_sweep().run_id == first.run_id
    client.delete_run(first.run_id)
    assert sweep_runs.latest_sweep().run_id == second.run_id


@pytest.mark.parametrize(
    ("status", "tag", "complete"),
    [
        ("FINISHED", None, True),
        ("FAILED", None, False),
        ("FAILED", "true", True),
        ("FINISHED", "false", False),
    ],
)
def test_complete_is_what_the_tag_says(client, status, tag, complete):
    run = client.create_run(experiment(client), tags={"step": "sweep"} | ({"complete": tag} if tag else {}))
    client.set_terminated(run.info.run_id, status)
    assert Sweep.from_run(client.get_run(run.info.run_id)).complete is complete


# Who drives


@pytest.fixture
def elsewhere(monkeypatch):
    """Calls a function as if on another machine."""

    def call(function, name: str = "another machine"):
        with monkeypatch.context() as patch:
            patch.setattr(lock, "_machine", lambda: name)
            return function()

    return call


@pytest.fixture
def run_id(client) -> str:
    return client.create_run(experiment(client)).info.run_id


SILENT = 1000  # seconds between signs of life: none comes within a test


def tag(client: MlflowClient, run_id: str) -> dict:
    return json.loads(client.get_run(run_id).data.tags.get(lock.TAG, "{}"))


def test_driver_that_slept_stops_at_its_next_write(client, run_id, elsewhere):
    asleep = elsewhere(lambda: lock.Fence(run_id, "study", beat=SILENT))
    awake = lock.Fence(run_id, "study", beat=SILENT, watch=0.05)
    assert tag(client, run_id)["token"] == awake.token == lock.token_of(run_id)
    with pytest.raises(TakenOver, match=rf"process {os.getpid()} on .* has taken over study study"):
        asleep.check()
    asleep.release()
    awake.check()
    assert tag(client, run_id)["token"] == awake.token, "what the other one wrote stays"
    awake.release()
    assert tag(client, run_id) == {}


def test_driver_that_gives_signs_of_life_is_not_taken_over(client, run_id, elsewhere):
    """Whatever its clock says: only whether the tag changes is looked at."""
    living = elsewhere(lambda: lock.Fence(run_id, "study", beat=0.02))
    with pytest.raises(UserError, match="another sweep drives study study"):
        lock.Fence(run_id, "study", watch=60)
    living.check()
    living.release()


def test_driver_that_has_ended_meanwhile_makes_room(client, run_id, elsewhere):
    first = elsewhere(lambda: lock.Fence(run_id, "study", beat=SILENT))
    first.release()
    second = lock.Fence(run_id, "study", beat=SILENT, watch=60)
    second.release()


def test_process_of_the_same_number_in_another_container_is_another(client, run_id, elsewhere):
    """Containers may have one host name, and each a process 1."""
    lock.Fence(run_id, "study", beat=SILENT)
    assert not elsewhere(lambda: lock._is_gone(tag(client, run_id)), "another container")


def test_dead_process_of_this_machine_makes_room_at_once(client, run_id):
    lock.Fence(run_id, "study", beat=SILENT)
    dead = tag(client, run_id) | {"pid": os.getppid(), "started": "0"}  # the number is another process's now
    client.set_tag(run_id, lock.TAG, json.dumps(dead))
    lock.Fence(run_id, "study", beat=SILENT, watch=600).release()


def test_ranking_is_not_recorded_where_another_driver_has_the_sweep(client, elsewhere):
    params = read(GRID)
    sweep = started(client, params, "recorded")
    trained(client, sweep.new_cell("A", '{"learning_rate": 0.01}'), 0.9)
    made = ranking.Ranking.make(Rule.of(params), sweep.cells(), [], 1, 100, complete=True)
    ours = elsewhere(lambda: lock.Fence(sweep.run_id, "study", beat=SILENT))
    theirs = lock.Fence(sweep.run_id, "study", beat=SILENT, watch=0.05)
    with pytest.raises(TakenOver):
        outcome.record(made, SweepContext(params, sweep, ours))
    assert ranking.stored(sweep.run_id) is None
    theirs.release()


def test_scores_of_an_earlier_winner_lose_its_name_before_they_are_overwritten(client):
    """What is killed while the new winner is measured leaves scores that are nobody's."""
    params = read(GRID)
    sweep = started(client, params, "measured")
    winner = trained(client, sweep.new_cell("A", '{"learning_rate": 0.01}'), 0.9)
    client.set_tag(sweep.run_id, "tested_run_id", "the winner before")
    sweep = Sweep.from_run(client.get_run(sweep.run_id))
    made = ranking.Ranking.make(Rule.of(params), sweep.cells(), [], 1, 100, complete=True)
    fence = lock.Fence(sweep.run_id, "study", beat=SILENT)
    gone = {"path": "/nowhere", "digest": "x", "cache": "/nowhere", "run_id": ""}
    backend = Backend(InProcessExecutor(), gone, mlflow.get_tracking_uri(), {})
    images = SimpleNamespace(indices=lambda split: [0])  # there is a test split
    with pytest.raises(UserError, match="prepared images in /nowhere"):
        outcome.measure(made, images, SweepContext(params, sweep, fence), backend)
    assert "tested_run_id" not in client.get_run(sweep.run_id).data.tags
    assert sweep_runs.test_run_id_of(winner) is None
    fence.release()


@pytest.mark.parametrize("folder", ["file", "missing/../file"])
def test_lock_that_cannot_be_written_is_an_error(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache: the sweep's lock .* cannot be written"):
        lock.study_lock("study", tmp_path / folder).__enter__()


def test_mean_of_a_ranking_is_that_of_its_file(client):
    params = read(GRID, "--sweep.finalists=1", "--sweep.repeats=3")
    sweep = started(client, params, "file")
    cell = trained(client, sweep.new_cell("A", '{"learning_rate": 0.01}'), 0.9)
    scores = [0.7, 0.8, 0.6]
    for seed, score in zip((43, 44, 45), scores, strict=True):
        values = json.dumps({"learning_rate": 0.01, "seed": seed})
        trained(client, sweep.new_finalist("A", values, cell), score)
    (entry,) = json.loads(ranking.of(sweep).as_json())["cells"]
    assert entry["value"] == entry["mean"] == pytest.approx(statistics.fmean(scores))
    assert entry["spread"] == pytest.approx(statistics.stdev(scores))
    assert [one["seed"] for one in entry["repeats"]] == [43, 44, 45]
