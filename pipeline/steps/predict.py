"""Classify images that have no labels.

    mlflow run . -e predict -P predict.source=photos

Reads the images of `predict.source` and the model `predict.model`, by default the champion. Writes to
`predict.output` and logs predictions.csv (`name`, `label`, `probability` of that label, one column per class,
`error`) and contact_sheet.png. For an unreadable image, only `name` and `error` are set. Memory does not grow
with the number of images. Takes some 10 s, and 1 s more per 1,000 small photos.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.config.params import Params
from pipeline.config.schema import PredictParams
from pipeline.runtime.console import counted, few
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command


def run(params: Params) -> Path:
    """Classify the images and record the predictions; returns the path of the CSV.

    Raises:
        UserError: There is no image that can be read, no model, or the output cannot be written.
    """
    from pipeline.sources import source
    from pipeline.tracking import artifacts, catalog, registry, runs

    if params.predict.source is None:
        raise UserError("predict.source is not set; allowed: a folder, a zip, an image, or a list of images")
    images = source.list_images(params.predict.source, "predict.source")
    register = params.register_
    uri = params.predict.model or registry.champion_uri(register.name, register.alias, "predict.model")
    catalog.look_up_named(uri, "predict.model")
    with importing_tensorflow():
        from pipeline.inference import predict as prediction
        from pipeline.tracking import models
    model = models.load(uri)
    print(f"{counted(len(images), 'image')}; {uri}, classes: {few(model.classes)}", flush=True)
    table, sheet = _places(params.predict)
    with runs.run("predict", params, {"step": "predict", "model": uri}):
        try:
            predicted = prediction.write(table, images, model, params.predict.contact_sheet)
            if predicted.shown:
                sheet.write_bytes(_sheet(*zip(*predicted.shown, strict=True)))
        except OSError as error:
            raise UserError(f"predict.output: {table} cannot be written: {error.strerror}") from error
        for file in (table, sheet) if predicted.shown else (table,):
            artifacts.log_file(file)
        counts = {**predicted.labels, "unreadable": predicted.unreadable}
        runs.log_metrics({"images/total": len(images), "images/rejected": predicted.unreadable})
        if predicted.unreadable == len(images):
            raise UserError(f"none of the {len(images):,} images can be read; the reasons are in {table}")
    print(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    print(f"predictions: {table}", *([f"contact sheet: {sheet}"] if predicted.shown else []), sep="\n")
    return table


def _places(predict: PredictParams) -> tuple[Path, Path]:
    """The paths of the CSV and of the contact sheet."""
    output = Path(predict.output).expanduser().absolute()
    table = output if output.suffix.lower() == ".csv" else output / "predictions.csv"
    return table, table.with_name("contact_sheet.png")


def _sheet(images: Sequence[np.ndarray], captions: Sequence[str]) -> bytes:
    """The contact sheet as PNG, of (size, size, 3) uint8 images."""
    from pipeline.figures import canvas, contact_sheet

    return canvas.png(contact_sheet.draw(np.stack(images), captions))


def main() -> None:
    """Parse the command line and classify."""
    command(run)


if __name__ == "__main__":
    main()
