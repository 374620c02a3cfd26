"""Images without labels, classified one batch after the other; memory does not grow with their number."""

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.dataset import decode
from pipeline.runtime.console import Bar
from pipeline.sources.source import SourceImage
from pipeline.tracking.models import Loaded
from served_image_classifier.classifier import BATCH, class_columns

COLUMNS = ("name", "label", "probability", "error")  # the classes stand before the last
SECONDS_BETWEEN_LINES = 10  # without a terminal


@dataclass
class Predicted:
    """What became of some images.

    Attributes:
        labels: how many were given each label.
        shown: pixels (size, size, 3) uint8 and captions of those for the contact sheet.
        unreadable: how many could not be read.
    """

    labels: dict[str, int]
    shown: list[tuple[np.ndarray, str]]
    unreadable: int = 0


def write(table: Path, images: Sequence[SourceImage], model: Loaded, shown: int) -> Predicted:
    """Classify images and write a CSV of `COLUMNS` and the classes, which appears when it is whole.

    Args:
        table: The CSV; its folder is made.
        images: At least one.
        model: Of any size; images are resized to it as `prepare` does.
        shown: How many images are kept, evenly from all; unreadable ones are left out.

    Raises:
        OSError: The CSV cannot be written.
    """
    wanted = set(np.linspace(0, len(images) - 1, min(shown, len(images))).round().astype(int).tolist())
    predicted = Predicted(dict.fromkeys(model.classes, 0), [])
    table.parent.mkdir(parents=True, exist_ok=True)
    partial = table.with_name(f"{table.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*COLUMNS[:-1], *class_columns(model.classes, COLUMNS), COLUMNS[-1]])
            for index, image, answer in _answers(images, model):
                name = images[index].name
                if image is None or isinstance(answer, str):
                    predicted.unreadable += 1
                    writer.writerow([name, *[""] * (2 + len(model.classes)), answer])
                    continue
                label, probability = model.classes[answer.argmax()], float(answer.max())
                predicted.labels[label] += 1
                writer.writerow([name, label, probability, *map(float, answer), ""])
                if index in wanted:
                    # a copy: a view would keep its whole batch
                    predicted.shown.append((image.copy(), f"{label} {probability:.2f} {name}"))
        partial.replace(table)
    finally:
        partial.unlink(missing_ok=True)
    return predicted


def _answers(
    images: Sequence[SourceImage], model: Loaded
) -> Iterator[tuple[int, np.ndarray | None, np.ndarray | str]]:
    """Each image's index, pixels and probabilities (num_classes,), or its index, None and a reason."""
    done = 0
    with _Progress(len(images)) as progress:
        for batch, decoded in decode.read_images(images, model.network.input_shape[1], BATCH):
            probabilities = model.network.predict_on_batch(batch) if len(batch) else ()
            answers = {
                index: (index, image, row)
                for index, image, row in zip(decoded.kept, batch, probabilities, strict=True)
            }
            reasons = iter(decoded.rejected)
            size = len(decoded.kept) + len(decoded.rejected)
            for index in range(done, done + size):
                yield answers.get(index) or (index, None, next(reasons).reason)
            done += size
            progress.update(size)


class _Progress(Bar):
    """A bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, total: int):
        super().__init__(total=total, desc="predict", disable=None)
        self.all, self.so_far, self.reported = total, 0, time.monotonic()

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` images more."""
        self.so_far += int(n or 0)
        if self.disable and time.monotonic() - self.reported > SECONDS_BETWEEN_LINES:
            self.reported = time.monotonic()
            print(f"{self.so_far:,} of {self.all:,} images", file=sys.stderr, flush=True)
        return super().update(n)
