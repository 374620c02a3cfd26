"""Which numbers a training computes with: the shorter ones where they are native here, and faster.

A processor's flags do not tell whether they are: with AVX-512 BF16 but no AMX, convolutions of bfloat16 took
1.75 times as long as of float32 on one Xeon, and 0.6 times as long on another. So a processor is timed, once,
in a process of its own (`python -m pipeline.training.mixed_precision` prints the ratio), and what
came out is kept in the user's cache.
"""

import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from pipeline.config.networks import NETWORKS
from pipeline.config.params import Params
from pipeline.runtime import hardware
from pipeline.runtime.hardware import BFLOAT16, FLOAT32

ENOUGH = 0.87  # of float32's time that bfloat16 may take at most to be worth its fewer digits
_ROUNDS = 5


def decided(params: Params) -> tuple[Params, str]:
    """The parameters with a precision in place of `auto`, and why, in words; unchanged where it is named."""
    if params.train.precision != "auto":
        return params, "as asked"
    native, because = hardware.precision()
    swept = params.sweep.grid.name or [params.model.name]
    if native == BFLOAT16 and not hardware.gpus():
        if not all(NETWORKS[name].bfloat16_on_cpu for name in swept):
            native, because = FLOAT32, f"{', '.join(swept)} gain nothing from bfloat16 on a processor"
        elif (taken := _taken()) > ENOUGH:
            native, because = FLOAT32, f"bfloat16 takes {taken:.2f} times as long on this processor"
        else:
            because = f"it takes {taken:.2f} times as long as float32 on this processor"
    return params.with_values({"train.precision": native}), because


def _taken() -> float:
    """The time that bfloat16 takes here, as a part of float32's; timed where that has not been done."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dogs-vs-cats"
    file = folder / "bfloat16.json"
    machine_and_version = f"{_processor()}, tensorflow {metadata.version('tensorflow')}"
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    if machine_and_version not in known:
        print("timing float32 against bfloat16 on this processor, once", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        if done.returncode != 0:
            return 1.0  # what cannot be timed is not used
        known[machine_and_version] = float(done.stdout.split()[-1])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(known, indent=1))
            partial.replace(file)
        except OSError:
            pass  # timed again next time
    return known[machine_and_version]


def _processor() -> str:
    """The processor's model, and what it can do that matters here."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    model = re.search(r"^model name\s*: (.*)$", told, re.MULTILINE)
    return f"{model[1] if model else 'unknown'} {' '.join(hardware.bfloat16_flags())}"


def measure() -> float:
    """Time convolutions as `simple_cnn` has them, with their gradients: bfloat16's part of float32's time."""
    import tensorflow as tf

    @tf.function
    def step(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            out = tf.reduce_sum(tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME")))
        return tape.gradient(out, [images, kernel])

    fastest = {}
    for _ in range(_ROUNDS):
        for dtype in (tf.float32, tf.bfloat16):
            arrays = tf.ones((32, 32, 32, 32), dtype), tf.ones((3, 3, 32, 64), dtype)
            step(*arrays)  # traced, the first time
            start = time.perf_counter()
            for _ in range(_ROUNDS):
                step(*arrays)[0].numpy()
            taken = time.perf_counter() - start
            fastest[dtype] = min(fastest.get(dtype, taken), taken)
    return fastest[tf.bfloat16] / fastest[tf.float32]


def in_precision(params: Params) -> Params:
    """The parameters with the precision that is computed in; told, where it was left to the machine."""
    resolved, because = decided(params)
    if resolved is not params:
        print(f"precision: {resolved.train.precision} ({because})", flush=True)
    return resolved


if __name__ == "__main__":
    print(measure())
