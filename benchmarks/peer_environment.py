"""The environment that the sweep and its peers are measured in: conda.yaml's packages, and the peers'."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
# Beside the pins of conda.yaml, and no dependencies of the pipeline. Autolog cannot do without tensorboard.
PEERS = ("keras-tuner==1.4.8", "ray[tune]==2.60.0", "tensorboard==2.21.0")
SHOWN = ("tensorflow", "keras", "numpy", "mlflow", "optuna", "keras-tuner", "ray", "tensorboard")


def requirements() -> list[str]:
    """The packages of conda.yaml and the peers', each pinned."""
    content = yaml.safe_load((ROOT / "conda.yaml").read_text())
    (packages,) = (item["pip"] for item in content["dependencies"] if isinstance(item, dict))
    return [*packages, *PEERS]


def install(folder: Path) -> Path:
    """Make the environment in a folder, unless it is there; returns its interpreter.

    Everything is compiled to bytecode, so that no system does that within its time.

    Raises:
        subprocess.CalledProcessError: a package cannot be had, or a peer's conflicts with a pin.
    """
    python, wanted = folder / "bin" / "python", requirements()
    marker = folder / "requirements.txt"
    if marker.exists() and marker.read_text().splitlines() == wanted:
        return python
    print(f"installing {', '.join(PEERS)} and the packages of conda.yaml", flush=True)
    if uv := shutil.which("uv"):
        commands = [
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, folder],
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *wanted],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", folder],
            [python, "-m", "pip", "install", "--quiet", "--compile", *wanted],
        ]
    for command in commands:
        subprocess.run(command, check=True)
    marker.write_text("\n".join(wanted))
    return python


def versions(python: Path) -> list[str]:
    """Lines for a reader: the versions that are installed, and the pins that they are not."""
    pinned = dict(line.split("==") for line in requirements())
    names = [name.partition("[")[0] for name in pinned]
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps([*map(version, sys.argv[1:])]))"
    )
    asked = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True)
    installed = dict(zip(names, json.loads(asked.stdout), strict=True))
    loosened = [
        f"{name} {installed[name]} in place of {pin}"
        for name, pin in zip(names, pinned.values(), strict=True)
        if installed[name] != pin
    ]
    return [
        ", ".join(f"{name} {installed[name]}" for name in SHOWN),
        f"pins of conda.yaml that were loosened: {', '.join(loosened) or 'none'}",
    ]
