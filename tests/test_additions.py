"""A model, a metric and a sampler, added to a copy of the project exactly as CONTRIBUTING.md says."""

import json
import math
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import optuna
import pytest
from conftest import ROOT, Project, cell_runs, leaderboard, predictions, sweep_run

CELLS = 3


def blocks() -> list[tuple[str, str, str]]:
    """The section's code blocks: a file, where in it (empty: see `add`), and the lines."""
    section = (
        (ROOT / "CONTRIBUTING.md")
        .read_text()
        .split("\n## Add a model, a metric, a sampler\n")[1]
        .split("\n## ")[0]
    )
    found = re.findall(r"```python\n# (\S+?)(?:, in (\w+))?\n(.*?)```", section, re.DOTALL)
    assert len(found) == section.count("```python")
    return found


def add(root: Path, file: str, within: str, lines: str) -> None:
    """Do what a block says: make the file; or put lines within a table; or in place of a table's own line."""
    path = root / file
    if not path.exists():
        path.write_text(lines)
        return
    table = within or lines.rstrip().splitlines()[-1].split(" = ")[0]
    (line,) = [line for line in path.read_text().splitlines(keepends=True) if line.startswith(f"{table} = ")]
    path.write_text(path.read_text().replace(line, line + lines if within else lines))


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project with all three, in which a sweep has used them."""
    project = Project(tmp_path_factory.mktemp("added"))
    for package in ("pipeline", "served_image_classifier"):
        shutil.copytree(ROOT / package, project.path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", project.path)
    for block in blocks():
        add(project.path, *block)
    result = project.run(
        "sweep",
        "--data.limit=60",
        "--train.epochs=1",
        "--model.name=tiny",
        "--sweep.metric=mcc",
        "--sweep.sampler=qmc",
        f"--sweep.n_trials={CELLS}",
        '--sweep.grid={"learning_rate":{"low":0.001,"high":0.1,"log":true}}',
        "--sweep.workers=1",
        PYTHONPATH=str(project.path),
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return project


def test_what_the_document_adds_keeps_the_house_rules(added):
    done = subprocess.run(["ruff", "check", "pipeline"], cwd=added.path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_added_model_is_trained(added):
    for run in cell_runs(added).values():
        assert run.info.status == "FINISHED"
        assert (run.data.params["model.name"], run.data.params["data.image_size"]) == ("tiny", "32")
    saved = list(added.path.glob("mlruns/**/*.keras"))
    assert len(saved) == CELLS
    for path in saved:
        with zipfile.ZipFile(path) as archive:
            assert json.loads(archive.read("config.json"))["config"]["name"] == "tiny"


def test_added_metric_is_recorded_and_ranks(added):
    for run in cell_runs(added).values():
        rows = predictions(Path(run.info.artifact_uri.removeprefix("file://"), "report"))
        pairs = [(row["label"] == "dog", row["prediction"] == "dog") for row in rows]
        hits, misses = pairs.count((True, True)), pairs.count((True, False))
        alarms, rest = pairs.count((False, True)), pairs.count((False, False))
        below = math.sqrt((hits + misses) * (alarms + rest) * (hits + alarms) * (misses + rest))
        expected = (hits * rest - misses * alarms) / below if below else 0
        assert run.data.metrics["report/mcc"] == pytest.approx(expected)
    parent = sweep_run(added)
    assert "test/mcc" in parent.data.metrics
    ranked = [cell_runs(added)[row["name"]].data.metrics["report/mcc"] for row in leaderboard(parent)]
    assert ranked == sorted(ranked, reverse=True) and len(ranked) == CELLS


def test_added_sampler_draws(added):
    storage = f"sqlite:///{added.path / 'sweeps.db'}"
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert any(key.startswith("qmc:") for key in study._storage.get_study_system_attrs(study._study_id))
    rates = {trial.params["learning_rate"] for trial in study.trials}
    assert len(rates) == CELLS and all(0.001 <= rate <= 0.1 for rate in rates)
