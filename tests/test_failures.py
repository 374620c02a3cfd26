"""What goes wrong in a sweep: changed images, no memory, no time, a bug, a full disk."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import (
    Project,
    assert_error_text,
    assert_user_error,
    cell_runs,
    free_port,
    leaderboard,
    read_until,
    sweep_run,
)

from pipeline.execution import failures, worker

pytestmark = pytest.mark.slow

TINY = ("--data.limit=40", "--data.image_size=16", "--train.epochs=2", "--sweep.workers=1")


def test_images_changed_in_mid_sweep(project):
    arguments = (*TINY, '--sweep.grid={"bias_initializer":[0.0,0.01,0.02,0.03,0.04]}')
    process = project.start("sweep", *arguments)
    read_until(process, "cell 1/5")
    (images,) = project.path.glob("data/prepared/*/images.npy")
    content = bytearray(images.read_bytes())
    content[-1] ^= 255
    images.write_bytes(content)
    text = process.stdout.read()
    assert_error_text(
        process.wait(), text, "changed while the sweep ran", str(images.parent), "rerun the same command"
    )
    finished = [run for run in cell_runs(project).values() if run.info.status == "FINISHED"]
    assert 1 <= len(finished) < 5
    result = project.run("sweep", *arguments)
    assert result.returncode == 0, result.stderr
    assert f"{len(finished)} done" in result.stdout
    assert len(leaderboard(sweep_run(project))) == 5


def test_out_of_memory_in_one_cell(project):
    """A real network that needs more than its worker may take: its process is ended, again and again."""
    arguments = (
        "--data.limit=500", "--data.image_size=128", "--train.epochs=1", "--sweep.workers=2",
        '--sweep.grid={"batch_size":[8,300]}', "--sweep.retries=1", "--sweep.worker_memory=1.5GiB",
    )  # fmt: skip
    result = project.run("sweep", *arguments)
    assert_user_error(
        result, "1 cell failed;", "batch_size_300", "its process died (was killed by signal 9", "2 times"
    )
    assert "batch_size_300: its process died" in result.stdout + result.stderr
    assert "try 2 of 2" in result.stdout
    runs = cell_runs(project)
    assert runs["batch_size_8"].info.status == "FINISHED"
    assert runs["batch_size_300"].info.status == "FAILED"
    assert "its process died" in runs["batch_size_300"].data.tags["reason"]
    parent = sweep_run(project)
    assert parent.info.status == "FAILED"
    assert (parent.data.metrics["cells/failed"], parent.data.metrics["cells/finished"]) == (1, 1)
    assert len(leaderboard(parent)) == 1
    # with room enough, the same command tries just that one
    result = project.run("sweep", *arguments[:-1])
    assert result.returncode == 0, result.stderr
    assert "2 cells, 1 done, 1 to train, 1 resumed from a checkpoint" in result.stdout
    after = cell_runs(project)
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert after["batch_size_8"].info.end_time == runs["batch_size_8"].info.end_time
    assert "reason" not in after["batch_size_300"].data.tags


def test_cell_that_takes_too_long_is_ended(project):
    arguments = (*TINY[:2], '--sweep.grid={"epochs":[1,100000]}', "--sweep.workers=1")
    result = project.run("sweep", *arguments, "--sweep.cell_timeout=30")
    assert_user_error(result, "1 cell failed;", "epochs_100000: took longer than sweep.cell_timeout, 30 s")
    runs = cell_runs(project)
    assert {name: run.info.status for name, run in runs.items()} == {
        "epochs_1": "FINISHED",
        "epochs_100000": "FAILED",
    }


BUGGY = """
import sys
from pipeline.models import simple_cnn
build = simple_cnn.build

def buggy(params, *rest):
    if params.activation == "mish":
        raise ZeroDivisionError("a bug of this network")
    return build(params, *rest)

simple_cnn.build = buggy
from pipeline.steps import sweep
sweep.main()
"""


def test_error_that_would_repeat_is_not_tried_again(project):
    arguments = (*TINY, '--sweep.grid={"activation":["relu","mish"]}')
    done = subprocess.run(
        [sys.executable, "-c", BUGGY, *arguments],
        cwd=project.path,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert_user_error(done, "1 cell failed;", "AC_mish: ZeroDivisionError: a bug of this network")
    assert "try 2" not in done.stdout + done.stderr
    failed = cell_runs(project)["AC_mish"]
    assert failed.info.status == "FAILED"
    artifacts = Path(failed.info.artifact_uri.removeprefix("file://"))
    assert "in buggy" in (artifacts / "traceback.txt").read_text()
    result = project.run("sweep", *arguments)
    assert result.returncode == 0, result.stderr
    assert "2 cells, 1 done, 1 to train" in result.stdout


def test_cell_that_can_record_nothing_answers_all_the_same(monkeypatch):
    """Its error cannot be told to a store that is gone: that ends the sweep, and does not hang it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    told = []
    # its parameters are none: an error of its own
    task = worker.Task(
        token="t", session="s", study="study", sweep_run_id="1" * 32, run_id="0" * 32, name="cell",
        params={}, store=f"http://127.0.0.1:{free_port()}", images={}, epochs=1, pruning=False,
        shared=False, versions={},
    )  # fmt: skip
    try:
        result = worker.run_cell(task, told.append)
    finally:
        mlflow.set_tracking_uri(before)
    assert result["state"] == failures.BROKEN
    assert "the tracking store failed" in result["reason"]
    assert [event["event"] for event in told] == ["started"]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A real file system of its own with 60 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_full_disk_in_mid_sweep(small_disk, workers):
    project = Project(small_disk)
    arguments = (
        *TINY,
        '--sweep.grid={"bias_initializer":[0.0,0.01,0.02,0.03]}',
        f"--sweep.workers={workers}",
    )
    process = project.start("sweep", *arguments)
    text = read_until(process, "cell 1/4")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**20))
        except OSError:
            pass
    text += process.stdout.read()
    assert_error_text(process.wait(), text, "the same command")
    assert "No space left" in text or "is full" in text
    assert len(text.splitlines()) < 12, text
    filler.unlink()
    result = project.run("sweep", *arguments)
    assert result.returncode == 0, result.stderr
    assert {run.info.status for run in cell_runs(project).values()} == {"FINISHED"}
    assert len(leaderboard(sweep_run(project))) == 4
