"""Show which image regions a prediction depends on: class activation maps, as figures.

    mlflow run . -e explain -P explain.source=photos

Explains the model of `explain.run_id`, else the champion, else the newest model; on the images of
`explain.source`, else on the model's most confident validation errors. Writes sheet.png and one figure per
image to `explain.output`, and logs them to a run. Takes some 10 s for eight images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config.params import Params
from pipeline.runtime.console import counted, few
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command, write

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.inference.class_activation import Explanation
    from pipeline.sources.layout import Rejection
    from pipeline.tracking.catalog import ModelDescription


def run(params: Params) -> "Explanation":
    """Explain a model's predictions and record the figures.

    Raises:
        UserError: There is no model, no readable image or no error to explain, or the model outputs NaN.
    """
    from pipeline.sources.source import list_images
    from pipeline.tracking import artifacts, runs

    section = params.explain
    listed = list_images(section.source, "explain.source") if section.source else []
    model_info = _model(params)
    class_index = _class_index(model_info.classes, section.class_name)
    prepared = None if section.source else _training_data(params, model_info)
    with importing_tensorflow():  # after `prepare`, which forks
        from pipeline.inference import class_activation, explain
        from pipeline.tracking import models
    model = models.load(model_info.uri)
    rejected: list[Rejection] = []
    with runs.run("explain", params, {"step": "explain", "explained_run_id": model_info.run_id or ""}):
        if prepared:
            images = explain.validation_errors(prepared, model, section.max_images)
        else:
            images, rejected = explain.read_images(section.source or "", listed, model, section.max_images)
        class_indices = None if class_index is None else np.full(len(images.names), class_index)
        explanation = class_activation.explain(model.network, images.images, class_indices, section.layer)
        if not np.isfinite(explanation.probabilities).all():
            raise UserError(f"{model_info.uri} outputs NaN (training diverged); set explain.run_id")
        files = explain.figures(images, explanation, model.classes)
        write(files, Path(section.output), "explain.output")
        artifacts.log_files(files, "explanations")
    for image in rejected:
        print(f"skipped, unreadable: {image.name}: {image.reason}")
    print(f"{counted(len(images.names), 'image')} explained by {explanation.method}")
    print(f"explanations: {Path(section.output, 'sheet.png').absolute()}")
    return explanation


def _model(params: Params) -> "ModelDescription":
    """The model to explain."""
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


def _training_data(params: Params, model_info: "ModelDescription") -> "Prepared":
    """The images that the model was trained on, with the same splits."""
    from pipeline.inference import training_data

    prepared = training_data.prepare_as_trained(model_info.training(), params)
    training_data.warn_if_changed(model_info.data_digest, prepared.digest)
    return prepared


def main() -> None:
    """Parse the command line and explain."""
    command(run)


if __name__ == "__main__":
    main()
