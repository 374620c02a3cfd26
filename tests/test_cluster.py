"""A cluster made by hand: `dask scheduler`, `dask worker` and `mlflow server`, with nothing else shared."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import distributed
import pytest
from conftest import Project, Server, assert_user_error, free_port, read_until
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

GRID = '--sweep.grid={"bias_initializer":[0.0,0.01,0.02,0.03,0.04,0.05,0.06,0.07]}'
TINY = ("--data.limit=40", "--data.image_size=16", "--train.epochs=3")
# A worker that sees nothing of the folder where the sweep is started, as on another machine.
ALONE = 'mount -t tmpfs tmpfs "$0" && exec "$@"'


class Cluster:
    """A Dask scheduler, and workers each in a folder of its own, without the project's code on their path."""

    def __init__(self, folder: Path, hidden: Path, stack: ExitStack):
        self.folder, self.hidden, self.stack = folder, hidden, stack
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._start("scheduler", [*_dask(), "scheduler", "--port", self.address.rpartition(":")[2]])

    def worker(self, name: str, python: str = sys.executable, **variables: str) -> subprocess.Popen:
        """Start a worker; it may take some seconds until it is there."""
        command = [*_dask(python), "worker", self.address, "--nthreads", "1", "--name", name]
        return self._start(
            name, ["unshare", "--mount", "sh", "-c", ALONE, str(self.hidden), *command], variables
        )

    def _start(self, name: str, command: list[str], variables: dict[str, str] | None = None):
        folder = self.folder / name
        folder.mkdir()
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, "--no-dashboard"],
                cwd=folder,
                env=kept | (variables or {}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.stack.callback(kill, process)
        return process


def _dask(python: str = sys.executable) -> list[str]:
    return [python, "-c", "from dask.__main__ import main; main()"]


def kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def calm_server(tmp_path_factory) -> Iterator[Server]:
    """One server for those tests that leave nothing on it."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def cluster(project: Project, tmp_path_factory) -> Iterator[Cluster]:
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no folder can be hidden from a process here: {done.stderr.strip()}")
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster"), project.path, stack)


def test_sweep_on_a_cluster_of_separate_folders(project: Project, server: Server, cluster: Cluster):
    cluster.worker("one")
    two = cluster.worker("two")
    arguments = (*TINY, GRID, f"--sweep.cluster={cluster.address}")
    process = project.start("sweep", *arguments, MLFLOW_TRACKING_URI=server.uri)
    text = read_until(process, "cell 2/8")
    kill(two)
    cluster.worker("three")
    text += process.stdout.read()
    assert process.wait() == 0, text
    client = MlflowClient(server.uri)
    runs = client.search_runs(["0"], "tags.step = 'cell'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["cell"] for run in runs}) == len(runs) == 8
    workers = {run.data.tags["worker"].split()[-1] for run in runs}
    assert {"one", "three"} <= workers <= {"one", "two", "three"}
    for run in runs:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3]
        assert len(run.outputs.model_outputs) == 1
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["report"]
    for name in ("one", "three"):
        assert list((cluster.folder / name).glob("data/prepared/*/images.npy")), "fetched and kept"
    (parent,) = client.search_runs(["0"], "tags.step = 'sweep'")
    assert parent.data.metrics["cells/finished"] == 8
    assert "test/accuracy" in parent.data.metrics
    # the driver's folder has the images, and nothing of the runs
    assert not (project.path / "mlflow.db").exists()
    # once more, with one more cell: nothing is fetched again, and the study is found
    longer = GRID.replace("0.07", "0.07,0.08")
    again = project.run(
        "sweep", *TINY, longer, f"--sweep.cluster={cluster.address}", MLFLOW_TRACKING_URI=server.uri
    )
    assert again.returncode == 0, again.stderr
    assert "9 cells, 8 done, 1 to train" in again.stdout


def test_cluster_without_a_worker_for_a_while(project: Project, server: Server, cluster: Cluster):
    """A worker that leaves hands its cell on; while there is none, the sweep waits, but not for ever."""
    one = cluster.worker("one")
    arguments = (*TINY[:2], '--sweep.grid={"epochs":[60,61]}', f"--sweep.cluster={cluster.address}")
    process = project.start("sweep", *arguments, MLFLOW_TRACKING_URI=server.uri)
    text = read_until(process, "epochs trained")
    with distributed.Client(cluster.address) as client:
        (address,) = client.nthreads()
        client.retire_workers([address], close_workers=True)
    text += read_until(process, "no worker is connected; waiting up to 5 min")
    kill(one)
    two = cluster.worker("two")
    text += read_until(process, "cell 1/2")
    kill(two)
    process.send_signal(signal.SIGTERM)
    text += process.stdout.read()
    assert process.wait() == 130, text

    result = project.run("sweep", *arguments, "--sweep.worker_wait=1", MLFLOW_TRACKING_URI=server.uri)
    assert_user_error(result, "has had no worker for 1 s (sweep.worker_wait)", "dask worker")
    client = MlflowClient(server.uri)
    (parent,) = client.search_runs(["0"], "tags.step = 'sweep'")
    assert parent.data.tags["complete"] == "false"
    assert "test/accuracy" not in parent.data.metrics
    cluster.worker("three")
    result = project.run("sweep", *arguments, MLFLOW_TRACKING_URI=server.uri)
    assert result.returncode == 0, result.stderr
    runs = client.search_runs(["0"], "tags.step = 'cell'")
    assert sorted(run.info.run_name for run in runs) == ["epochs_60", "epochs_61"]
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
        assert steps == list(range(1, int(run.data.params["train.epochs"]) + 1))
    assert client.get_run(parent.info.run_id).data.tags["complete"] == "true"


def test_driver_is_killed_while_the_clusters_workers_go_on(
    project: Project, server: Server, cluster: Cluster
):
    cluster.worker("one")
    arguments = (*TINY[:2], '--sweep.grid={"epochs":[60,61]}', f"--sweep.cluster={cluster.address}")
    process = project.start("sweep", *arguments, MLFLOW_TRACKING_URI=server.uri)
    read_until(process, "epochs trained")
    kill(process)
    result = project.run("sweep", *arguments, MLFLOW_TRACKING_URI=server.uri)
    assert result.returncode == 0, result.stderr
    client = MlflowClient(server.uri)
    runs = client.search_runs(["0"], "tags.step = 'cell'")
    assert sorted(run.info.run_name for run in runs) == ["epochs_60", "epochs_61"]
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
        assert steps == list(range(1, int(run.data.params["train.epochs"]) + 1))


def test_local_store_is_refused(project: Project):
    result = project.run("sweep", *TINY, "--sweep.cluster=tcp://127.0.0.1:8786")
    assert_user_error(result, "sweep.cluster", "mlflow.db", "MLFLOW_TRACKING_URI", "mlflow server")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://127.0.0.1"])
def test_cluster_that_does_not_answer(project: Project, calm_server: Server, address: str):
    result = project.run("sweep", *TINY, f"--sweep.cluster={address}", MLFLOW_TRACKING_URI=calm_server.uri)
    assert_user_error(result, "sweep.cluster", address, "dask scheduler")
    assert MlflowClient(calm_server.uri).search_runs(["0"], "tags.step = 'cell'") == []


def test_workers_with_another_version_of_a_package(
    project: Project, calm_server: Server, cluster: Cluster, tmp_path_factory
):
    other = tmp_path_factory.mktemp("other")
    (other / "keras-2.0.0.dist-info").mkdir()
    (other / "keras-2.0.0.dist-info" / "METADATA").write_text("Name: keras\nVersion: 2.0.0\n")
    cluster.worker("one", PYTHONPATH=str(other))
    result = project.run(
        "sweep", *TINY, f"--sweep.cluster={cluster.address}", MLFLOW_TRACKING_URI=calm_server.uri
    )
    assert_user_error(result, "1 workers have other packages", "keras 2.0.0", "conda.yaml")


def test_workers_with_a_users_own_module_named_pipeline(
    project: Project, calm_server: Server, cluster: Cluster, tmp_path_factory
):
    """It is left alone: the sweep does not send its own package of that name."""
    other = tmp_path_factory.mktemp("other")
    (other / "pipeline.py").write_text("raise AssertionError('a user is surprised by an import')")
    cluster.worker("one", PYTHONPATH=str(other))
    result = project.run(
        "sweep", *TINY, f"--sweep.cluster={cluster.address}", MLFLOW_TRACKING_URI=calm_server.uri
    )
    file = str(other / "pipeline.py")
    assert_user_error(result, "1 workers have another module named pipeline", file, "PYTHONPATH")
    with distributed.Client(cluster.address) as client:
        (origin,) = client.run(lambda: importlib.util.find_spec("pipeline").origin).values()
    assert origin == file


def test_workers_without_a_package(project: Project, calm_server: Server, cluster: Cluster, tmp_path_factory):
    """An environment with everything but Keras."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    here = Path(sysconfig.get_paths()["purelib"])
    there = next(folder.glob("lib/python3*/site-packages"))
    for path in here.iterdir():
        if not path.name.startswith("keras"):
            shutil.rmtree(there / path.name, ignore_errors=True)
            (there / path.name).symlink_to(path)
    cluster.worker("one", python=str(folder / "bin" / "python"))
    result = project.run(
        "sweep", *TINY, f"--sweep.cluster={cluster.address}", MLFLOW_TRACKING_URI=calm_server.uri
    )
    assert_user_error(result, "1 workers have other packages", "keras is missing", "conda.yaml")
