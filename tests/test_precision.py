"""Shorter numbers: where they are chosen, and that only training computes with them."""

import json
import os
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from test_training import halves, labelled_images, read, train

from pipeline.execution import cluster
from pipeline.runtime import hardware
from pipeline.runtime.hardware import BFLOAT16, FLOAT16, FLOAT32
from pipeline.training import mixed_precision
from pipeline.training.batches import predict
from pipeline.training.checkpoint import Checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def forgotten():
    hardware.precision.cache_clear()
    yield
    hardware.precision.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [("8.0", BFLOAT16), ("9.0\n8.6", BFLOAT16), ("7.5", FLOAT16), ("8.6\n7.0", FLOAT16), ("6.1", FLOAT32)],
)
def test_gpus_are_asked_of_their_driver(tmp_path, monkeypatch, capabilities, expected):
    """A stand-in for NVIDIA's tool, as there is no GPU here."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: one" || printf "{capabilities}\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "usable_gpus", lambda there: there)
    assert hardware.precision()[0] == expected
    params, why = mixed_precision.resolve(read("--model.name=small_resnet"))
    assert params.train.precision == expected and "compute capability" in why


def test_gpus_that_tensorflow_cannot_use_are_none(tmp_path, monkeypatch, capsys):
    """A driver, and TensorFlow without CUDA's libraries, as conda.yaml installs it: asked for real."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: one" || echo 9.0\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    hardware.usable_gpus.cache_clear()
    assert hardware.gpus() == hardware.gpus() == []
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert f"{sys.executable} -m pip install 'tensorflow[and-cuda]=={metadata.version('tensorflow')}'" in said
    assert "GPU" not in hardware.precision()[1]
    shared = read("--sweep.workers_per_gpu=9").sweep
    assert cluster.workers(read().sweep) == cluster.workers(shared)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # who names one has none for that
    assert hardware.gpus() == []
    hardware.usable_gpus.cache_clear()


@pytest.fixture
def native(monkeypatch, tmp_path) -> Path:
    """A processor with bfloat16, and the file that keeps how fast it is."""
    monkeypatch.setattr(hardware, "bfloat16_flags", lambda: ["avx512_bf16"])
    monkeypatch.setattr(hardware, "gpus", list)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dogs-vs-cats/bfloat16.json"


@pytest.mark.parametrize(("taken", "expected"), [(0.6, BFLOAT16), (0.95, FLOAT32), (1.76, FLOAT32)])
def test_processor_is_believed_what_was_timed(native, taken, expected):
    native.parent.mkdir()
    about = f"{mixed_precision._cpu_model()}, tensorflow {metadata.version('tensorflow')}"
    native.write_text(json.dumps({about: taken}))
    params, why = mixed_precision.resolve(read())
    assert params.train.precision == params.flat()["train.precision"] == expected
    assert f"{taken:.2f}" in why


def test_processor_is_timed_once(native, capsys):
    first, _ = mixed_precision.resolve(read())
    ((_, taken),) = json.loads(native.read_text()).items()
    assert 0.05 < taken < 20
    assert first.train.precision == (FLOAT32 if taken > mixed_precision.MAX_TIME_RATIO else BFLOAT16)
    second, _ = mixed_precision.resolve(read())
    assert second.train.precision == first.train.precision
    assert capsys.readouterr().out.count("timing float32 against bfloat16") == 1


def test_networks_that_gain_nothing_stay_as_they_are(native):
    params, why = mixed_precision.resolve(read("--model.name=small_resnet"))
    assert params.train.precision == FLOAT32 and "not faster for small_resnet" in why
    assert not native.exists()  # and nothing is timed for them


def test_what_is_asked_for_is_done(native):
    params = read("--train.precision=mixed_bfloat16", "--model.name=small_resnet")
    assert mixed_precision.resolve(params)[0] is params


@pytest.mark.parametrize("name", [BFLOAT16, FLOAT16])
def test_only_training_computes_with_shorter_numbers(name):
    trained = train(f"--train.precision={name}")
    full = train("--train.precision=float32")
    assert trained.history["loss"] != full.history["loss"]
    assert {layer.dtype_policy.name for layer in trained.model.layers} == {FLOAT32}
    validation = halves(labelled_images())[1]
    np.testing.assert_array_equal(predict(trained.model, validation), trained.probabilities)


@pytest.mark.parametrize(("name", "augment"), [(BFLOAT16, "true"), (FLOAT16, "false")])
def test_going_on_gives_the_same_digits(name, augment):
    arguments = (f"--train.precision={name}", f"--train.augment={augment}")
    kept = []
    whole = train(*arguments, on_epoch=lambda epoch, values, make: kept.append(make().dump()))
    again = train(*arguments, checkpoint=Checkpoint.load(kept[0]))
    assert again.history == whole.history
    for mine, theirs in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
