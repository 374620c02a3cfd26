"""The images that `explain` shows, and their figures."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.dataset.prepare import Prepared
from pipeline.evaluation.metrics import most_confident_errors
from pipeline.figures import canvas, fonts, heatmaps
from pipeline.inference import evaluate
from pipeline.inference.class_activation import Explanation
from pipeline.runtime.console import counted
from pipeline.runtime.errors import UserError
from pipeline.sources import split_names
from pipeline.sources.images import UnreadableImage, decode, resize
from pipeline.sources.layout import Rejection
from pipeline.sources.source import SourceImage
from pipeline.sources.tree import label_of_name
from pipeline.tracking.models import Loaded


@dataclass(frozen=True, eq=False)
class ExplainedImages:
    """n images, 1 or more.

    Attributes:
        names: Of the images.
        images: (n, size, size, 3) uint8.
        labels: The class of each image; None if it has no label.
    """

    names: Sequence[str]
    images: np.ndarray
    labels: Sequence[str | None]


def read_images(
    source: str, listed: Sequence[SourceImage], model: Loaded, max_images: int
) -> tuple[ExplainedImages, list[Rejection]]:
    """The first readable images of a source, resized as `prepare` does, and the unreadable ones before.

    Raises:
        UserError: No image can be read.
    """
    images: dict[str, np.ndarray] = {}
    rejected = []
    for image in listed:
        try:
            images[image.name] = resize(decode(image.read()), model.network.input_shape[1])
        except UnreadableImage as error:
            rejected.append(Rejection(image.name, str(error)))
        if len(images) == max_images:
            break
    if not images:
        raise UserError(
            f"explain.source: none of the {len(listed):,} images in {source} can be read; the first, "
            f"{rejected[0].name}: {rejected[0].reason}"
        )
    if len(images) + len(rejected) < len(listed):
        print(f"explaining the first {len(images)} of {len(listed):,} images; see explain.max_images")
    labels = [label_of(name, model.classes) for name in images]
    return ExplainedImages(list(images), np.stack(list(images.values())), labels), rejected


def label_of(name: str, classes: Sequence[str]) -> str | None:
    """The class in an image's folder or file name; None if neither is one of the model's.

    >>> label_of("photos/cat/1.jpg", ["cat", "dog"]), label_of("emu/1.jpg", ["cat", "dog"])
    ('cat', None)
    """
    candidates = (posixpath.basename(posixpath.dirname(name)), label_of_name(name))
    return next((label for label in candidates if label in classes), None)


def validation_errors(prepared: Prepared, model: Loaded, max_images: int) -> ExplainedImages:
    """The most confident errors of a model on the validation split.

    Raises:
        UserError: There are none.
    """
    result = evaluate.evaluate(model, prepared, split_names.VALIDATION)
    errors = most_confident_errors(result.labels, result.probabilities)
    total = len(result.labels)
    if not len(errors):
        raise UserError(f"the model has no errors on the {total:,} validation images; set explain.source")
    shown = errors[:max_images]
    rows = prepared.indices(split_names.VALIDATION)[shown]
    print(
        f"{counted(len(errors), 'error')} on {total:,} validation images; explaining the {len(rows)} most "
        "confident"
    )
    labels = [prepared.classes[label] for label in result.labels[shown]]
    return ExplainedImages([prepared.names[row] for row in rows], np.asarray(prepared.images[rows]), labels)


def figures(images: ExplainedImages, explanation: Explanation, classes: Sequence[str]) -> dict[str, bytes]:
    """PNG files by name: sheet.png, image_01.png, image_02.png, …."""
    classes = [fonts.short(name) for name in classes]
    captions, files = [], {}
    for index, heatmap in enumerate(explanation.maps):
        name, given = images.names[index], images.labels[index]
        row, explained = explanation.probabilities[index], classes[explanation.class_indices[index]]
        predicted = f"predicted {classes[row.argmax()]} {row.max():.2f}"
        label = f"label {fonts.short(given)}, " if given else ""
        method = f"{explanation.method} of {explained}" + ("" if heatmap.any() else " (all zero)")
        captions.append(f"{label}{predicted}\n{method}: {name}")
        figure = heatmaps.side_by_side(images.images[index], heatmap, f"{name}: {label}{predicted}", method)
        files[f"image_{index + 1:02}.png"] = canvas.png(figure, indexed=False)
    sheet = heatmaps.sheet(images.images, explanation.maps, captions)
    return {"sheet.png": canvas.png(sheet, indexed=False)} | files
