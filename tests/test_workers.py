"""The sweep with real workers: how many, stopped and gone on with, extended, pruned, drawn."""

import json
import os
import signal

import distributed
import pytest
from conftest import (
    ROOT,
    assert_user_error,
    cell_runs,
    leaderboard,
    read_until,
    steps,
    sweep_run,
)
from mlflow import MlflowClient

from pipeline.config.command_line import load
from pipeline.execution import cluster
from pipeline.execution.executors import DaskExecutor
from pipeline.runtime import hardware
from pipeline.runtime.errors import UserError

pytestmark = pytest.mark.slow

TINY = ("--data.limit=40", "--data.image_size=16", "--train.epochs=2", "--sweep.workers=1")
PAIR = '--sweep.grid={"bias_initializer":[0.0,0.01]}'


@pytest.mark.parametrize("workers", ["0", "-1", "1.5", "many"])
def test_number_of_workers_that_is_none(project, workers):
    assert_user_error(project.run("sweep", f"--sweep.workers={workers}"), "sweep.workers", workers, "auto")
    assert not (project.path / "data").exists()


def test_workers_far_above_the_cores(project):
    cores = len(os.sched_getaffinity(0))
    result = project.run("sweep", *TINY, "--sweep.workers=999")
    assert_user_error(result, "sweep.workers", "999", f"{cores} cores", f"1 to {4 * cores}")
    assert MlflowClient(project.uri).search_runs(["0"]) == []


def test_each_worker_sees_its_gpu_alone(monkeypatch):
    """There is none here; what a worker would see is its variable."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(hardware, "usable_gpus", lambda there: there)
    monkeypatch.syspath_prepend(ROOT)  # before the code of a served model, which another test may have left
    sweep = load(["--sweep.workers_per_gpu=2"]).sweep
    assert cluster.workers(sweep) == 4
    executor = cluster.start(sweep, 4, 4)
    try:
        seen = executor._client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
    finally:
        executor.close()
    assert sorted(seen.values()) == ["0", "0", "1", "1"]


def test_local_cluster_is_closed_to_others_and_outlives_a_dead_worker(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.syspath_prepend(ROOT)
    executor = cluster.start(load([]).sweep, 1, 1)
    try:
        client = executor._client
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        # nobody without this process's certificate
        for options in ({}, {"security": distributed.Security.temporary()}):
            with pytest.raises((OSError, TypeError, ValueError)):
                distributed.Client(address, timeout=3, **options)
        with pytest.raises(UserError, match="the worker's process died"):
            executor.call(os._exit, 1)
        assert executor.call(os.getpid) != os.getpid(), "the nanny has started another one"
        # of two users of a cluster, one does not end the other's tasks
        (worker_address,) = client.nthreads()
        guest = DaskExecutor(client, worker_wait=1)
        assert not guest._is_shared(worker_address)
        other = distributed.Client(address, security=client.security)
        task = other.submit(distributed.Event("end", client=None).wait, pure=False)
        while not client.processing()[worker_address]:
            distributed.Event("end", client=other)
        assert guest._is_shared(worker_address)
        distributed.Event("end", client=other).set()
        task.result()
        other.close()
    finally:
        executor.close()


def test_auto_is_what_cores_and_memory_allow(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sweep = load([]).sweep
    room = cluster.MEMORY_LIMIT // cluster.WORKER_MEMORY
    assert cluster.workers(sweep) == max(1, min(len(os.sched_getaffinity(0)), room))
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", cluster.WORKER_MEMORY // 2)
    assert cluster.workers(sweep) == 1


def test_extended_grid_runs_just_the_new_cells(project):
    assert project.run("sweep", *TINY, PAIR).returncode == 0
    before = cell_runs(project)
    result = project.run("sweep", *TINY, '--sweep.grid={"bias_initializer":[0.0,0.01,0.02]}')
    assert result.returncode == 0, result.stderr
    assert "3 cells, 2 done, 1 to train" in result.stdout
    after = cell_runs(project)
    assert set(after) - set(before) == {"BI_0.02"}
    for name, run in before.items():
        assert after[name].info.run_id == run.info.run_id
        assert after[name].info.start_time == run.info.start_time
        assert after[name].info.end_time == run.info.end_time
        assert after[name].info.start_time < after["BI_0.02"].info.start_time
    parent = sweep_run(project)
    assert parent.data.metrics["cells/total"] == parent.data.metrics["cells/finished"] == 3
    assert {row["run_id"] for row in leaderboard(parent)} == {run.info.run_id for run in after.values()}
    # a further key: its old value is what the cells had all along
    longer = '--sweep.grid={"bias_initializer":[0.0,0.01,0.02],"dropout":[0.5,0.4]}'
    planned = project.run("sweep", *TINY, longer, "--sweep.dry_run=true")
    assert "6 cells, 3 done, 3 to train" in planned.stdout
    assert "BI_0.0-dropout_0.5: done, accuracy" in planned.stdout
    assert "BI_0.0-dropout_0.4: to train" in planned.stdout
    # another seed, another batch size: another study
    for other in ("--seed=7", "--train.batch_size=16"):
        assert "2 cells, 0 done" in project.run("sweep", *TINY, PAIR, other, "--sweep.dry_run=true").stdout
    assert len(MlflowClient(project.uri).search_runs(["0"])) == 4, "a plan leaves nothing"
    # started over: another run, with cells of its own
    result = project.run("sweep", *TINY, PAIR, "--sweep.restart=true")
    assert result.returncode == 0, result.stderr
    runs = MlflowClient(project.uri).search_runs(["0"], "tags.step = 'sweep'")
    studies = sorted(run.data.tags["study"] for run in runs)
    assert studies == [parent.data.tags["study"], f"{parent.data.tags['study']}-2"]
    assert "2 cells, 2 done" in project.run("sweep", *TINY, PAIR, "--sweep.dry_run=true").stdout
    # what another version wrote is refused, and left alone by starting over
    newest = next(run for run in runs if run.data.tags["study"].endswith("-2"))
    MlflowClient(project.uri).set_tag(newest.info.run_id, "format", "0")
    assert_user_error(
        project.run("sweep", *TINY, PAIR), newest.info.run_id, "another version", "sweep.restart=true"
    )


def test_run_of_mlflow_for_a_second_time_names_the_first(project):
    """`mlflow run` makes a run for each command, and passes its id on; the study keeps the first."""
    client = MlflowClient(project.uri)
    ids = []
    for grid in (PAIR, '--sweep.grid={"bias_initializer":[0.0,0.01,0.02]}'):
        made = client.create_run("0", run_name="bold-owl-34")
        result = project.run("sweep", *TINY, grid, MLFLOW_RUN_ID=made.info.run_id)
        assert result.returncode == 0, result.stderr
        ids.append(made.info.run_id)
    first, second = (client.get_run(run_id) for run_id in ids)
    assert first.data.tags["step"] == "sweep"
    assert "resumes" not in first.data.tags
    assert second.data.tags["resumes"] == first.info.run_id
    assert second.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in cell_runs(project).values()} == {ids[0]}
    assert len(leaderboard(first)) == 3
    assert "best_run_id" not in second.data.tags


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGTERM), ("2", signal.SIGINT)])
def test_stopped_once_at_the_end_of_the_epoch(project, workers, number):
    arguments = (*TINY, PAIR, "--train.epochs=200", f"--sweep.workers={workers}")
    process = project.start("sweep", *arguments)
    read_until(process, "epochs trained")
    os.killpg(process.pid, number)  # as a terminal does it: the workers get it too
    text = process.stdout.read()
    assert process.wait() == 130, text
    assert "stopped; rerun the same command to resume" in text
    assert "Traceback" not in text
    runs = cell_runs(project)
    begun = {name: run for name, run in runs.items() if run.data.params}
    assert {run.info.status for run in runs.values()} == {"KILLED"}
    assert sweep_run(project).info.status == "KILLED"
    for run in begun.values():
        assert steps(project, run) == list(range(1, len(steps(project, run)) + 1))
        assert (project.path / "data" / "checkpoints" / f"{run.info.run_id}.npz").exists()
    planned = project.run("sweep", *arguments, "--sweep.dry_run=true")
    assert f"{next(iter(begun))}: to resume" in planned.stdout


def test_stopped_twice_at_once(project):
    arguments = (*TINY, PAIR, "--sweep.workers=2")
    slow = ("--data.limit=800", "--data.image_size=128", "--train.epochs=9")
    process = project.start("sweep", *arguments, *slow)
    read_until(process, "2 workers")
    process.send_signal(signal.SIGINT)
    read_until(process, "stopping")
    process.send_signal(signal.SIGINT)
    text = process.stdout.read()
    assert process.wait() == 130
    assert "aborted; rerun the same command to resume from the last checkpoints" in text
    assert "Traceback" not in text
    assert {run.info.status for run in cell_runs(project).values()} <= {"KILLED"}
    assert sweep_run(project).info.status == "KILLED"


def test_second_driver_of_a_study_is_refused(project):
    arguments = (*TINY, PAIR, "--train.epochs=500")
    process = project.start("sweep", *arguments)
    try:
        read_until(process, "epochs trained")
        result = project.run("sweep", *arguments)
        assert_user_error(result, "another sweep drives study", f"process {process.pid}", str(project.path))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(MlflowClient(project.uri).search_runs(["0"], "tags.step = 'sweep'")) == 1


def test_pruned_sweep(project):
    grid = '--sweep.grid={"learning_rate":[0.01,1e-9],"bias_initializer":[0.0,0.01,0.02,0.03,0.04]}'
    arguments = (
        "--data.limit=200", "--data.image_size=32", "--train.epochs=6", "--sweep.workers=2", grid,
        "--sweep.pruner=median", "--model.activation=tanh", "--model.kernel_initializer=lecun_uniform",
    )  # fmt: skip
    result = project.run("sweep", *arguments)
    assert (result.returncode, result.stderr) == (0, "")  # two processes, and no noise of any library
    runs = cell_runs(project)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    pruned = {name: run for name, run in runs.items() if run.data.tags.get("pruned") == "true"}
    assert pruned
    rows = {row["name"]: row for row in leaderboard(sweep_run(project))}
    assert len(rows) == 10
    for name, run in runs.items():
        epochs = len(steps(project, run))
        assert (epochs < 6) == (name in pruned)
        assert rows[name]["epochs"] == str(epochs)
        assert "report/accuracy" in run.data.metrics
        assert run.outputs.model_outputs
    assert "pruned after epoch" in result.stdout
    again = project.run("sweep", *arguments)
    assert "10 cells, 10 done, 0 to train" in again.stdout


def test_sampler_with_ranges_and_budget(project):
    space = '--sweep.grid={"learning_rate":{"low":0.0001,"high":0.1,"log":true},"activation":["relu","tanh"]}'
    arguments = (*TINY, space, "--sweep.sampler=tpe", "--sweep.n_trials=4")
    result = project.run("sweep", *arguments, "--sweep.time_budget=0.001")
    assert result.returncode == 0, result.stderr
    assert "time budget is used up" in result.stdout
    assert len(cell_runs(project)) < 4
    result = project.run("sweep", *arguments)
    assert result.returncode == 0, result.stderr
    values = [json.loads(run.data.tags["cell"]) for run in cell_runs(project).values()]
    assert len(values) == 4
    assert all(0.0001 <= value["learning_rate"] <= 0.1 for value in values)
    assert [row["rank"] for row in leaderboard(sweep_run(project))] == ["1", "2", "3", "4"]
