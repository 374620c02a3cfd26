"""A sweep's whole wall time against the bare, already traced `fit` of its cells on as many workers.

    python -m benchmarks.bare --cells 8

4,000 real photos, of which 2,400 are trained on, 64 px, four epochs, `simple_cnn`, two workers of one thread.
The bare fit runs in two processes at once, each with a network that has been traced, on arrays in memory,
with its validation; an epoch's time there, times the cells and epochs, over the workers, is what the sweep is
compared with. With 48 cells, the default grid, it takes some 15 minutes on two cores, with 8 some 4.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "dogs-vs-cats-8k.zip"
EPOCHS, WORKERS = 4, 2
GRID = {
    "learning_rate": [0.01, 0.001],
    "activation": ["swish", "tanh", "leaky_relu", "relu"],
    "kernel_initializer": ["he_uniform", "glorot_uniform", "lecun_uniform"],
    "bias_initializer": [0.0, 0.01],
}
# One process of the bare fit: arguments are the command line of a step; prints the seconds of each epoch.
BARE = """
import json, sys, time
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
import keras
from pipeline import models
from pipeline.config.command_line import load
from pipeline.dataset.prepare import prepare
params = load(sys.argv[1:])
prepared = prepare(params.data, params.seed)
arrays = []
for split in ("train", "validation"):
    rows = prepared.indices(split)
    arrays.append((prepared.images[rows], prepared.labels[rows]))
model = models.build(params.model, prepared.image_size, len(prepared.classes), params.seed)
model.compile(
    optimizer=keras.optimizers.SGD(params.train.learning_rate, momentum=params.train.momentum),
    loss="sparse_categorical_crossentropy", metrics=["accuracy"],
)
seconds = []
for epoch in range(1 + int(sys.stdin.readline())):  # the first one traces
    start = time.perf_counter()
    model.fit(*arrays[0], batch_size=params.train.batch_size, validation_data=arrays[1], verbose=0)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds[1:]))
"""


def bare(arguments: list[str], folder: Path, epochs: int) -> float:
    """The median seconds of an epoch of the bare fit, in as many processes at once as there are workers."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BARE, *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(WORKERS)
    ]  # fmt: skip
    for process in processes:
        process.stdin.write(f"{epochs}\n")
        process.stdin.flush()
    return statistics.median(
        value for process in processes for value in json.loads(process.communicate()[0].splitlines()[-1])
    )


def sweep(arguments: list[str], folder: Path) -> float:
    """The seconds of the whole command."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline.steps.sweep", *arguments], cwd=folder, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    """Measure the bare fit, the sweep, the bare fit again, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, choices=(8, 48), default=48)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    options = parser.parse_args()
    grid = GRID
    if options.cells == 8:
        grid = {"learning_rate": [0.01, 0.001], "activation": GRID["activation"]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        data = [f"--data.source={options.photos.absolute()}", "--data.limit=4000", "--data.image_size=64"]
        data += ["--train.precision=float32", f"--train.epochs={EPOCHS}", f"--sweep.workers={WORKERS}"]
        epochs = [bare(data, folder, 3)]
        whole = sweep([*data, f"--sweep.grid={json.dumps(grid)}"], folder)
        epochs.append(bare(data, folder, 3))
    one = statistics.mean(epochs)
    total = one * EPOCHS * options.cells / WORKERS
    before, after = epochs
    print(f"an epoch of bare fit, {WORKERS} at once: {before:.2f} s before the sweep, {after:.2f} s after it")
    print(
        f"{options.cells} cells of bare fit: {total:.0f} s; sweep: {whole:.0f} s; ratio {whole / total:.2f}"
    )


if __name__ == "__main__":
    main()
