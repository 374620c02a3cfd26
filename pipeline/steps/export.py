"""Write a model as files for other programs: Keras, SavedModel, ONNX.

    mlflow run . -e export

Reads the model `export.model`, else the champion, else the newest sweep's best cell. Writes each of
`export.formats`, classes.json and export.json (the model, and the comparison of the files) to the folder
`export.output`, and logs them to a run. Each file is loaded again and must predict as the model does, on
validation images of the model's training; otherwise nothing is kept. Takes some 10 s for a small network.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command


def run(params: Params) -> Path:
    """Export a model and record it; returns the folder.

    Raises:
        UserError: There is no model, a file predicts otherwise, or the folder cannot be replaced.
    """
    from pipeline.inference import export_folder
    from pipeline.tracking import artifacts, catalog, runs

    section = params.export
    output = Path(section.output).expanduser().resolve()
    place = f"export.output: {output}"
    with export_folder.disk_errors(place):
        export_folder.check_replaceable(output)
    uri = section.model or _champion_or_winner(params)
    model_info = catalog.look_up_named(uri, "export.model")
    trained = model_info.training()
    images = _images(params, trained)
    with importing_tensorflow():  # after `prepare`, which forks
        from pipeline.inference import export
        from pipeline.tracking import models
    model = models.load(uri)
    print(f"comparing {uri} on {len(images):,} validation images", flush=True)
    with runs.run("export", params, {"step": "export", "model": uri, "exported_run_id": trained}):
        expected = export.answers(model.network, images)
        if not np.isfinite(expected).all():
            raise UserError(f"{uri} outputs NaN (training diverged); set another export.model")
        with export_folder.disk_errors(place), export_folder.replacing(output) as folder:
            for format in section.formats:
                export.write(model.network, model.classes, format, folder / export_folder.FILES[format])
            figures = export_folder.compare(folder, section.formats, images, expected)
            _report(figures, len(images))
            export_folder.write_json(folder / export_folder.CLASSES, list(model.classes))
            about = {"model": uri, "run_id": trained, "data_digest": model.data_digest}
            record = {**about, "images": len(images), "formats": figures}
            export_folder.write_json(folder / export_folder.RECORD, record)
            with export_folder.disk_errors("the run's artifacts"):
                artifacts.upload(folder, "export")
    print(f"export: {output}")
    return output


def _champion_or_winner(params: Params) -> str:
    """The URI of the champion if present, else of the newest sweep's best cell."""
    from pipeline.sweep import selection
    from pipeline.tracking import catalog, registry

    name, alias = params.register_.name, params.register_.alias
    if champion := registry.champion(name, alias):
        return f"models:/{name}/{champion.version}"
    run_id = selection.select(None, "export.model", "sweep")
    if run_id is None:
        raise UserError(
            f"there is no models:/{name}@{alias}, and no sweep; run `mlflow run . -e register` first, or set "
            "export.model"
        )
    print(f"exporting the model of run {run_id}", flush=True)
    return catalog.of_run(run_id)


def _images(params: Params, run_id: str) -> np.ndarray:
    """`export.images` validation images of a training, evenly spaced: (n, size, size, 3) uint8."""
    from pipeline.inference import training_data
    from pipeline.sources import split_names

    prepared = training_data.prepare_as_trained(run_id, params)
    rows = prepared.indices(split_names.VALIDATION)
    count = min(params.export.images, len(rows))
    return np.asarray(prepared.images[rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]])


def _report(figures: Mapping[str, Mapping[str, float]], images: int) -> None:
    """Print and log the comparison of the files on so many images.

    Raises:
        UserError: A file predicts otherwise.
    """
    from pipeline.inference import export, export_folder
    from pipeline.tracking import runs

    print(export_folder.table(figures, images), flush=True)
    for format, row in figures.items():
        runs.log_metrics({f"export/{format}/{key}": value for key, value in row.items()})
    wrong = [
        format
        for format, row in figures.items()
        if not export.Comparison(row["max_difference"], int(row["differing_labels"])).same
    ]
    if wrong:
        raise UserError(
            f"the predictions of {', '.join(wrong)} differ from the model's (allowed: a difference of up to "
            f"{export.TOLERANCE:g}, and no other label), so nothing is kept; remove it from export.formats"
        )


def main() -> None:
    """Parse the command line and export."""
    command(run)


if __name__ == "__main__":
    main()
