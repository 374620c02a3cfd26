"""What tests share: a project folder with a store of its own, small parameters, the real photos."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real photos, beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the real photos are not there: no folder {SHARED / 'data'}")
    return SHARED


class Project:
    """A folder to run steps in: its own store and data, the checkout's code and params.yaml.

    Attributes:
        path: where `mlflow.db`, `mlruns` and `data` go.
    """

    def __init__(self, path: Path):
        self.path = path
        (path / "params.yaml").write_text((ROOT / "params.yaml").read_text())

    def run(self, step: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run a step as a command, in a process of its own; stdout and stderr are kept apart as text."""
        return subprocess.run(
            [sys.executable, "-m", f"pipeline.steps.{step}", *arguments],
            cwd=self.path,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=600,
        )

    def start(self, step: str, *arguments: str, **variables: str) -> subprocess.Popen:
        """Start a step in a process group of its own; stdout and stderr come as lines of one text stream."""
        return subprocess.Popen(
            [sys.executable, "-m", f"pipeline.steps.{step}", *arguments],
            cwd=self.path,
            env=self.environment(PYTHONUNBUFFERED="1", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def environment(self, **variables: str) -> dict[str, str]:
        """The variables of a step's process: the checkout's code, nothing of MLflow's but what is given."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return kept | {"PYTHONPATH": str(ROOT)} | variables

    @property
    def uri(self) -> str:
        """The tracking URI of the folder's store."""
        return f"sqlite:///{self.path / 'mlflow.db'}"


def read_until(process: subprocess.Popen, words: str) -> str:
    """What a started step prints up to the line with these words; fails where it ends without them."""
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    raise AssertionError(f"no {words!r} in:\n{text}")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project folder."""
    return Project(tmp_path)


def assert_user_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """A clear error: status 1, no traceback, and a last line or lines with all these words."""
    assert_error_text(result.returncode, result.stderr, *words)


def assert_error_text(returncode: int, stderr: str, *words: str) -> None:
    """As `assert_user_error`, for a step that was started."""
    assert returncode == 1, stderr
    assert "Traceback" not in stderr
    message = stderr[stderr.rindex("error: ") :]
    for word in words:
        assert word in message, message
