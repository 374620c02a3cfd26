"""No step forks once TensorFlow runs: each prepares its images before it imports that.

`prepare` decodes in forked processes, and a fork of a process with TensorFlow's threads hangs now and then.
"""

import json
import subprocess
import sys

import pytest
from conftest import Project, described_model
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Param

pytestmark = pytest.mark.slow

# Runs steps in one process. An import of Keras or TensorFlow ends a step; every set of images must have been
# prepared by then. What a step would prepare afterwards is missed: so the sets are compared as well.
SCRIPT = """
import importlib, json, sys
from pathlib import Path
from pipeline.dataset import prepare as preparing

class TensorFlowImported(Exception):
    pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "keras"):
            raise TensorFlowImported

def prepare(data, seed):
    sizes.append(data.image_size)
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    return real(data, seed)

from pipeline.config.command_line import load
from pipeline.tracking import store
real, preparing.prepare = preparing.prepare, prepare
sys.meta_path.insert(0, Finder())
store.connect()
for step, arguments in json.loads(sys.argv[1]):
    sizes = []
    try:
        importlib.import_module(f"pipeline.steps.{step}").run(load(arguments))
        end = "not imported"
    except TensorFlowImported:
        end = "imported"
    print("found", json.dumps([step, sizes, end]))
"""


def test_images_are_prepared_before_tensorflow_is_imported(with_champion: Project, tmp_path):
    """The champion takes 16 px. A newcomer of 24 px is compared at both sizes."""
    small = ["--data.limit=60", "--data.image_size=24", "--train.epochs=1"]
    client = MlflowClient(with_champion.uri)
    training = client.search_runs(["0"], "tags.step = 'train'")[0]
    newcomer = client.create_run("0", tags={"step": "train"}).info.run_id
    params = training.data.params | {"data.image_size": "24"}
    client.log_batch(newcomer, params=[Param(key, value) for key, value in params.items()])
    uri = described_model(client, newcomer, tmp_path, classes=["cat", "dog"], data_digest="d", image_size=24)
    client.log_outputs(newcomer, [LoggedModelOutput(uri.removeprefix("models:/"), step=0)])
    client.set_terminated(newcomer)
    try:
        steps = {
            "train": (small, [24]),
            "main": (small, [24]),
            "sweep": ([*small, "--sweep.dry_run=true"], [24]),
            "evaluate": ([f"--evaluate.run_id={training.info.run_id}"], [16]),
            "explain": ([], [16]),
            "export": ([], [16]),
            "register": ([f"--register.run_id={newcomer}"], [24, 16]),
            "doctor": ([*small, "--data.limit=120"], [24]),
        }
        asked = json.dumps([[step, arguments] for step, (arguments, _) in steps.items()])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, asked],
            cwd=with_champion.path,
            env=with_champion.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("found ")]
        told = [json.loads(line.removeprefix("found ")) for line in lines]
        found = {step: (sizes, end) for step, sizes, end in told}
        assert {step: sizes for step, (sizes, _) in found.items()} == {
            step: sizes for step, (_, sizes) in steps.items()
        }
        assert {step for step, (_, end) in found.items() if end == "not imported"} == {"sweep"}
    finally:
        client.delete_run(newcomer)
