"""Draw where in an image a model sees a class: class activation maps, as figures.

    mlflow run . -e explain -P explain.source=photos

Explains the model of `explain.run_id`, the champion, or the newest one, on a folder of images, or on the
validation images of its training that it gets wrong and is surest of. Writes sheet.png and one figure a
image to `explain.output`, and logs them to a run. Takes some 10 s for eight images.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config.params import Params
from pipeline.runtime.console import counted, few, warn
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command, write

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.inference.class_activation import Explanation
    from pipeline.sources.layout import Rejection
    from pipeline.sources.source import SourceImage
    from pipeline.tracking.catalog import ModelDescription
    from pipeline.tracking.models import Loaded


@dataclass(frozen=True, eq=False)
class _Images:
    """What is explained: names, (n, size, size, 3) uint8 images, and the label of each that has one."""

    names: Sequence[str]
    images: np.ndarray
    labels: Sequence[str | None]


def run(params: Params) -> "Explanation":
    """Explain a model's answers and record the figures."""
    from pipeline.sources.source import list_images
    from pipeline.tracking import artifacts, runs

    asked = params.explain
    listed = list_images(asked.source, "explain.source") if asked.source else []
    known = _chosen(params)
    class_index = _class_index(known.classes, asked.class_name)
    prepared = None if asked.source else _prepared(params, known)
    with importing_tensorflow():  # which cannot be forked, as `prepare` does
        from pipeline.inference import class_activation
        from pipeline.tracking import models
    model = models.load(known.uri)
    with runs.run("explain", params, {"step": "explain", "explained_run_id": known.run_id or ""}):
        if prepared is None:
            images, rejected = _read(asked.source, listed, model, asked.count)
        else:
            images, rejected = _mistaken(params, prepared, model), []
        class_indices = None if class_index is None else np.full(len(images.names), class_index)
        explanation = class_activation.explain(model.network, images.images, class_indices, asked.layer)
        if not np.isfinite(explanation.probabilities).all():
            raise UserError(f"{known.uri} has diverged and answers nothing; name another run")
        files = _figures(images, explanation, model.classes)
        write(files, Path(asked.output), "explain.output")
        artifacts.log_files(files, "explanations")
    for image in rejected:
        print(f"left out, since it cannot be read: {image.name}: {image.reason}")
    print(f"{counted(len(images.names), 'image')} explained by {explanation.method}")
    print(f"explanations: {Path(asked.output, 'sheet.png').absolute()}")
    return explanation


def _chosen(params: Params) -> "ModelDescription":
    """The model that is explained."""
    from pipeline.sweep import selection
    from pipeline.tracking import catalog, registry

    name, alias = params.register_.name, params.register_.alias
    if params.explain.run_id is None and (champion := registry.champion(name, alias)):
        print(f"explaining models:/{name}@{alias}, version {champion.version}")
        return catalog.look_up_named(f"models:/{name}/{champion.version}", "explain.run_id")
    run_id = selection.select(params.explain.run_id, "explain.run_id", "train", "sweep")
    if run_id is None:
        raise UserError(
            f"there is no model to explain: no models:/{name}@{alias}, and no training or sweep; run "
            "`mlflow run . -e train` first, or set explain.run_id"
        )
    print(f"explaining the model of run {run_id}")
    return catalog.look_up(catalog.of_run(run_id))


def _class_index(classes: Sequence[str], name: str | None) -> int | None:
    if name is not None and name not in classes:
        raise UserError(f"explain.class_name: got {name!r}; allowed: null, {few(classes)}")
    return None if name is None else classes.index(name)


def _read(
    source: str, listed: "Sequence[SourceImage]", model: "Loaded", count: int
) -> tuple[_Images, "list[Rejection]"]:
    """The first images of a source that can be read, resized as `prepare` does, and those that cannot."""
    from pipeline.sources.images import UnreadableImage, decode, resize
    from pipeline.sources.layout import Rejection

    images, rejected = {}, []
    for image in listed:
        try:
            images[image.name] = resize(decode(image.read()), model.network.input_shape[1])
        except UnreadableImage as error:
            rejected.append(Rejection(image.name, str(error)))
        if len(images) == count:
            break
    if not images:
        raise UserError(
            f"explain.source: none of the {len(listed):,} images in {source} can be read; the first, "
            f"{rejected[0].name}: {rejected[0].reason}"
        )
    if len(images) + len(rejected) < len(listed):
        print(f"the first {len(images)} of {len(listed):,} images; explain.max_images takes more")
    labels = [_label(name, model.classes) for name in images]
    return _Images(list(images), np.stack(list(images.values())), labels), rejected


def _label(name: str, classes: Sequence[str]) -> str | None:
    """The class that an image's folder or name tells, where it is one of the model's."""
    from pipeline.sources.layout import label_of_name

    told = (posixpath.basename(posixpath.dirname(name)), label_of_name(name))
    return next((label for label in told if label in classes), None)


def _prepared(params: Params, known: "ModelDescription") -> "Prepared":
    """The images that a model was trained on, split as they were."""
    from pipeline.dataset import prepare
    from pipeline.tracking import runs

    trained = runs.params_of(known.training(), params)
    prepared = prepare.prepare(trained.data, trained.seed)
    if known.data_digest != prepared.digest:
        warn("the images have changed since the training: some of these may have been trained on")
    return prepared


def _mistaken(params: Params, prepared: "Prepared", model: "Loaded") -> _Images:
    """The validation images that a model gets wrong, the most confident first."""
    from pipeline.evaluation.metrics import most_confident_errors
    from pipeline.inference import evaluate
    from pipeline.sources import split_names

    result = evaluate.evaluate(model, prepared, split_names.VALIDATION)
    wrong = most_confident_errors(result.labels, result.probabilities)
    if not len(wrong):
        raise UserError(
            f"the model makes no mistake on the {len(result.labels):,} validation images; name others with "
            "explain.source"
        )
    surest = wrong[: params.explain.max_images]
    rows = prepared.indices(split_names.VALIDATION)[surest]
    print(
        f"{counted(len(wrong), 'mistake')} on {len(result.labels):,} validation images, the surest "
        f"{len(rows)} shown"
    )
    labels = [prepared.classes[label] for label in result.labels[surest]]
    return _Images([prepared.names[row] for row in rows], np.asarray(prepared.images[rows]), labels)


def _figures(images: _Images, explanation: "Explanation", classes: Sequence[str]) -> dict[str, bytes]:
    """sheet.png, and image_01.png and so on, by name."""
    from pipeline.figures import canvas, fonts, heatmaps

    classes = [fonts.short(name) for name in classes]
    captions, files = [], {}
    for index, heat in enumerate(explanation.maps):
        row, explained = explanation.probabilities[index], classes[explanation.class_indices[index]]
        predicted = f"predicted {classes[row.argmax()]} {row.max():.2f}"
        label = f"label {fonts.short(images.labels[index])}, " if images.labels[index] else ""
        title = f"{images.names[index]}: {label}{predicted}"
        of = f"{explanation.method} of {explained}" + ("" if heat.any() else " (no heat)")
        captions.append(f"{label}{predicted}\n{of}: {images.names[index]}")
        figure = heatmaps.side_by_side(images.images[index], heat, title, of)
        files[f"image_{index + 1:02}.png"] = canvas.png(figure, indexed=False)
    sheet = heatmaps.sheet(images.images, explanation.maps, captions)
    return {"sheet.png": canvas.png(sheet, indexed=False)} | files


def main() -> None:
    """Parse the command line and explain."""
    command(run)


if __name__ == "__main__":
    main()
