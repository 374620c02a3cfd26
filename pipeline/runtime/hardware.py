"""What this machine has: cores, GPUs, and the shorter numbers that it computes natively."""

import functools
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pipeline.runtime.console import warn

FLOAT32, BFLOAT16, FLOAT16 = "float32", "mixed_bfloat16", "mixed_float16"
_ASKED_SECONDS = 120  # that TensorFlow has to say which GPUs it can use
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}  # of /proc/cpuinfo


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def description() -> str:
    """This machine in a line: system, cores, GPUs."""
    count = len(gpus())
    of_graphics = f"{count} GPU{'s' * (count != 1)}" if count else "no GPU"
    return f"{platform.system()} {platform.machine()}, {cores()} cores, {of_graphics}"


def gpus() -> list[str]:
    """The GPUs that TensorFlow can use here, by the names and as far as CUDA_VISIBLE_DEVICES has them.

    The driver's tool says which there are. Where there are some, TensorFlow itself says how many it can use:
    none where it lacks CUDA's libraries, which a warning says once.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name not in ("", "-1")]
    else:
        names = re.findall(r"^GPU (\d+):", _ask("-L"), re.MULTILINE)
    return names[: usable_gpus(len(names))] if names else []


@functools.cache
def usable_gpus(there: int) -> int:
    """How many GPUs TensorFlow can use, asked in a process of its own: importing it here would hold them.

    Args:
        there: how many the driver or the user says there are, for the warning.
    """
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_ASKED_SECONDS,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        usable = int(done.stdout.split()[-1]) if done.returncode == 0 else 0
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        usable = 0
    if not usable:
        wanted = f"'tensorflow[and-cuda]=={metadata.version('tensorflow')}'"
        warn(
            f"TensorFlow cannot use the GPUs of this machine ({there}), so networks are trained on the "
            f"processor; to have it use them: {sys.executable} -m pip install {wanted}"
        )
    return usable


@functools.cache
def precision() -> tuple[str, str]:
    """The shorter numbers that this machine computes natively, by Keras's name, and what computes them.

    bfloat16 on NVIDIA's compute capability 8 and up, float16 on 7; without a GPU, bfloat16 on a processor
    with AVX-512 BF16 or AMX; float32 elsewhere. Of several GPUs the oldest counts.
    """
    if gpus():
        capabilities = [
            float(line) for line in _ask("--query-gpu=compute_cap", "--format=csv,noheader").split()
        ]
        oldest = min(capabilities, default=0.0)
        name = BFLOAT16 if oldest >= 8 else FLOAT16 if oldest >= 7 else FLOAT32
        return name, f"a GPU of compute capability {oldest}"
    found = bfloat16_flags()
    return (
        (BFLOAT16, f"a processor with {found[-1]}") if found else (FLOAT32, "what this machine is made for")
    )


def bfloat16_flags() -> list[str]:
    """What this processor has of instructions for bfloat16, as Linux calls them."""
    try:
        told = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return []
    return sorted(set(told[1].split()) & _CPU_FLAGS) if told else []


def _ask(*arguments: str) -> str:
    """What NVIDIA's tool prints; nothing where there is none."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
