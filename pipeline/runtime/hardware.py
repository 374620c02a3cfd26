"""The hardware of this machine: cores, GPUs, and the dtype policy that it supports natively."""

import functools
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pipeline.runtime.console import counted, warn

FLOAT32, BFLOAT16, FLOAT16 = "float32", "mixed_bfloat16", "mixed_float16"
_TENSORFLOW_TIMEOUT_SECONDS = 120  # includes the import of TensorFlow
_SMI_TIMEOUT_SECONDS = 30
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}  # of /proc/cpuinfo


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def description() -> str:
    """System, cores and GPUs of this machine in one line."""
    count = len(gpus())
    graphics = counted(count, "GPU") if count else "no GPU"
    return f"{platform.system()} {platform.machine()}, {cores()} cores, {graphics}"


def gpus() -> list[str]:
    """The names of the GPUs that TensorFlow can use, among those of CUDA_VISIBLE_DEVICES if it is set.

    `nvidia-smi` lists the GPUs. TensorFlow, in a child process, counts those that it can use: none if CUDA's
    libraries are missing, which a warning reports once.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name not in ("", "-1")]
    else:
        names = re.findall(r"^GPU (\d+):", _nvidia_smi("-L"), re.MULTILINE)
    return names[: usable_gpus(len(names))] if names else []


@functools.cache
def usable_gpus(present: int) -> int:
    """The number of GPUs that TensorFlow can use, counted in a child process: importing it reserves them.

    Args:
        present: The number of GPUs according to the driver or to CUDA_VISIBLE_DEVICES, for the warning.
    """
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_TENSORFLOW_TIMEOUT_SECONDS,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        usable = int(done.stdout.split()[-1]) if done.returncode == 0 else 0
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        usable = 0
    if not usable:
        wanted = f"'tensorflow[and-cuda]=={metadata.version('tensorflow')}'"
        warn(
            f"TensorFlow cannot use the GPUs of this machine ({present}); networks are trained on the CPU; "
            f"to use the GPUs: {sys.executable} -m pip install {wanted}"
        )
    return usable


@functools.cache
def precision() -> tuple[str, str]:
    """The mixed-precision dtype policy that this machine supports natively, and the device that supports it.

    `mixed_bfloat16` from NVIDIA's compute capability 8, `mixed_float16` from 7; without a GPU,
    `mixed_bfloat16` on a CPU with AVX-512 BF16 or AMX; `float32` otherwise. The oldest GPU decides.
    """
    if gpus():
        capabilities = [
            float(line) for line in _nvidia_smi("--query-gpu=compute_cap", "--format=csv,noheader").split()
        ]
        oldest = min(capabilities, default=0.0)
        name = BFLOAT16 if oldest >= 8 else FLOAT16 if oldest >= 7 else FLOAT32
        return name, f"a GPU of compute capability {oldest}"
    found = bfloat16_flags()
    return (
        (BFLOAT16, f"a CPU with {found[-1]}") if found else (FLOAT32, "a CPU without bfloat16 instructions")
    )


def bfloat16_flags() -> list[str]:
    """The bfloat16 instruction sets of the CPU, sorted, by Linux's names."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return []
    return sorted(set(found[1].split()) & _CPU_FLAGS) if found else []


def _nvidia_smi(*arguments: str) -> str:
    """The output of `nvidia-smi`; empty if it is missing or fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=_SMI_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
