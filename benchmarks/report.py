"""What reporting on predictions takes: `python -m benchmarks.report [--images N] [--classes K …]`.

Softmax probabilities that are drawn, most of them right, go through each part of what a training reports,
and a page shows, of its validation split; each number of classes in a process of its own. CPU time; half
a minute for the default, the validation split of a million images.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 10_000  # images drawn at once


def predictions(images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(images,) labels and (images, classes) float32 probabilities."""
    rng, labels = np.random.default_rng(0), np.arange(images) % classes
    probabilities = np.empty((images, classes), np.float32)
    for start in range(0, images, BLOCK):
        logits = rng.standard_normal((min(BLOCK, images - start), classes), np.float32)
        rows = np.arange(len(logits))
        logits[rows, labels[start + rows]] += 1.5 if classes == 2 else 4
        np.exp(logits, out=logits)
        probabilities[start : start + BLOCK] = logits / logits.sum(axis=1, keepdims=True)
    return labels, probabilities


def measure(images: int, classes: int) -> None:
    """Print a line for each part: its name, its CPU time and the size of its file."""
    from pipeline.evaluation import intervals, metrics
    from pipeline.evaluation.predictions import Predictions
    from pipeline.figures import canvas, confusion_matrix, curves
    from pipeline.inference import report

    labels, probabilities = predictions(images, classes)
    names = [f"class_{number:04}" for number in range(classes)]
    files = [f"{names[label]}/{number:07}.jpg" for number, label in enumerate(labels.tolist())]
    Predictions.from_parquet(report.predictions(["a", "b"], ["x"], labels[:1], np.eye(2)[:1]))  # imports

    def part(name: str, action: Callable[[], object]) -> object:
        start = time.process_time()
        done = action()
        size = f"{len(done) / 1e6:.2f} MB" if isinstance(done, bytes) else ""
        print(f"{name:26}{time.process_time() - start:8.2f} s {size:>10}", flush=True)
        return done

    found = part("scores, report", lambda: metrics.report(labels, probabilities, names))
    content = part("predictions.parquet", lambda: report.predictions(names, files, labels, probabilities))
    part("  read", lambda: Predictions.from_parquet(content))
    content = part("confusion_matrix.json", lambda: report.confusion(found.confusion, names))
    part("  read", lambda: report.read_confusion(content))
    part("confusion_matrix.png", lambda: canvas.png(confusion_matrix.draw(found.confusion, names)))
    part("roc_curve.png", lambda: canvas.png(curves.roc_curve(labels, probabilities, names)))
    part("intervals", lambda: intervals.of(found.confusion))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and measure each number of classes in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200_000, help="in the validation split")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 100, 1000])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        measure(options.images, *options.classes)
        return
    for classes in options.classes:
        print(f"{options.images:,} images, {classes:,} classes", flush=True)
        numbers = [f"--images={options.images}", "--classes", str(classes)]
        subprocess.run([sys.executable, "-m", "benchmarks.report", "--measure", *numbers], check=True)


if __name__ == "__main__":
    main()
