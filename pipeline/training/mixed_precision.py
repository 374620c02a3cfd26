"""Resolve the dtype policy `auto`: mixed precision where the hardware supports it and it is faster.

CPU flags do not say whether bfloat16 is faster: with AVX-512 BF16 but without AMX, its convolutions took 1.75
times as long as those of float32 on one Xeon, and 0.6 times as long on another. So each CPU is timed once, in
a process of its own (`python -m pipeline.training.mixed_precision` prints the ratio), and the result is kept
in the user's cache.
"""

import contextlib
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

MAX_TIME_RATIO = 0.87  # bfloat16's time as a share of float32's, up to which its lower precision pays off
_ROUNDS = 5


def resolve(params: Params) -> tuple[Params, str]:
    """Replace the precision `auto` by the dtype policy that suits the hardware.

    Returns:
        The parameters, the same object if the precision is not `auto`; and the reason.
    """
    if params.train.precision != "auto":
        return params, "set explicitly"
    policy, reason = hardware.precision()
    names = params.sweep.grid.name or [params.model.name]
    if policy == BFLOAT16 and not hardware.gpus():
        if not all(NETWORKS[name].bfloat16_on_cpu for name in names):
            policy, reason = FLOAT32, f"bfloat16 on a CPU is not faster for {', '.join(names)}"
        else:
            ratio = _time_ratio()
            policy = BFLOAT16 if ratio <= MAX_TIME_RATIO else FLOAT32
            reason = f"bfloat16 takes {ratio:.2f} times as long as float32 on this CPU"
    return params.with_values({"train.precision": policy}), reason


def resolve_and_print(params: Params) -> Params:
    """Resolve the precision as `resolve` does; print the dtype policy and the reason if it was `auto`."""
    resolved, reason = resolve(params)
    if resolved is not params:
        print(f"precision: {resolved.train.precision} ({reason})", flush=True)
    return resolved


def _time_ratio() -> float:
    """bfloat16's time as a share of float32's on this CPU: read from the user's cache, or measured."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dogs-vs-cats"
    file = folder / "bfloat16.json"
    key = f"{_cpu_model()}, tensorflow {metadata.version('tensorflow')}"
    ratios: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        ratios = json.loads(file.read_text())
    if key not in ratios:
        print("timing float32 against bfloat16 on this CPU, once", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        if done.returncode != 0:
            return 1.0  # bfloat16 is not used where it cannot be timed
        ratios[key] = float(done.stdout.split()[-1])
        with contextlib.suppress(OSError):  # measured again next time
            folder.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(ratios, indent=1))
            partial.replace(file)
    return ratios[key]


def _cpu_model() -> str:
    """The model of the CPU and its flags for bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return f"{model[1] if model else 'unknown'} {' '.join(hardware.bfloat16_flags())}"


def measure() -> float:
    """Time the convolutions of `simple_cnn` with their gradients: bfloat16's time as a share of float32's."""
    import tensorflow as tf

    def gradients(images: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            out = tf.reduce_sum(tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME")))
        return list(tape.gradient(out, [images, kernel]))

    step = tf.function(gradients)
    seconds: dict[tf.DType, float] = {}
    for _ in range(_ROUNDS):
        for dtype in (tf.float32, tf.bfloat16):
            arrays = tf.ones((32, 32, 32, 32), dtype), tf.ones((3, 3, 32, 64), dtype)
            step(*arrays)  # the first call traces the graph
            start = time.perf_counter()
            for _ in range(_ROUNDS):
                step(*arrays)[0].numpy()
            elapsed = time.perf_counter() - start
            seconds[dtype] = min(seconds.get(dtype, elapsed), elapsed)
    return seconds[tf.bfloat16] / seconds[tf.float32]


if __name__ == "__main__":
    print(measure())
