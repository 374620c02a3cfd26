"""Write a model as files for other programs: Keras, SavedModel, ONNX.

    mlflow run . -e export

Takes the model `export.model`; where none is named, the champion, or the newest sweep's best cell. Writes
each of `export.formats`, with classes.json and export.json (which model it is, and how the files compare), to
the folder `export.output`, and logs them to a run. Each file is read again from the disk and must answer as
the model itself does, on validation images of the model's own training; where one does not, nothing is
kept. Takes some 10 s for a small network.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command

FILES = {"keras": "model.keras", "saved_model": "saved_model", "onnx": "model.onnx"}
CLASSES, RECORD = "classes.json", "export.json"


def run(params: Params) -> Path:
    """Export a model and record it; returns the folder."""
    from pipeline.tracking import artifacts, catalog, runs

    asked = params.export
    output = Path(asked.output).expanduser().resolve()
    place = f"export.output: {output}"
    with _disk_errors(place):
        _check_replaceable(output)
    uri = asked.model or _champion_or_winner(params)
    known = catalog.look_up_named(uri, "export.model")
    trained = known.training()
    images = _images(params, trained)
    with importing_tensorflow():  # which cannot be forked, as `prepare` does
        from pipeline.inference import export
        from pipeline.tracking import models
    model = models.load(uri)
    print(f"{uri} is compared on {len(images):,} validation images", flush=True)
    with runs.run("export", params, {"step": "export", "model": uri, "exported_run_id": trained}):
        expected = export.answers(model.network, images)
        if not np.isfinite(expected).all():
            raise UserError(f"{uri} has diverged and answers nothing; name another as export.model")
        with _disk_errors(place), _replacing(output) as folder:
            for format in asked.formats:
                export.write(model.network, model.classes, format, folder / FILES[format])
            figures = _compare(folder, asked.formats, images, expected)
            _dump(folder / CLASSES, list(model.classes))
            about = {"model": uri, "run_id": trained, "data_digest": model.data_digest}
            _dump(folder / RECORD, {**about, "images": len(images), "formats": figures})
            with _disk_errors("the run's artifacts"):
                artifacts.upload(folder, "export")
    print(f"export: {output}")
    return output


def _champion_or_winner(params: Params) -> str:
    """The URI of the champion; where there is none, of the newest sweep's best cell."""
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
    """Validation images of a training, evenly from all: uint8 (n, size, size, 3)."""
    from pipeline.dataset import prepare
    from pipeline.sources import split_names
    from pipeline.tracking import runs

    trained = runs.params_of(run_id, params)
    prepared = prepare.prepare(trained.data, trained.seed)
    rows = prepared.indices(split_names.VALIDATION)
    count = min(params.export.images, len(rows))
    return prepared.images[rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]]


def _compare(
    folder: Path, formats: Sequence[str], images: np.ndarray, expected: np.ndarray
) -> dict[str, dict[str, float]]:
    """Compare every format with the model's own answers; print and log the figures.

    Returns:
        By format: `megabytes`, `max_difference`, `differing_labels`.

    Raises:
        UserError: one does not answer as the model does.
    """
    from pipeline.inference import export
    from pipeline.tracking import runs

    figures, wrong = {}, []
    for format in formats:
        path = folder / FILES[format]
        comparison = export.compare(expected, export.answers_of_file(format, path, images))
        figures[format] = {"megabytes": export.megabytes(path), **asdict(comparison)}
        wrong += [] if comparison.same else [format]
    print(_table(figures, len(images)), flush=True)
    for format, row in figures.items():
        runs.log_metrics({f"export/{format}/{key}": value for key, value in row.items()})
    if wrong:
        raise UserError(
            f"{', '.join(wrong)} does not answer as the model does (allowed: a difference of up to "
            f"{export.TOLERANCE:g}, and no other label), so nothing is kept; leave it out of export.formats"
        )
    return figures


def _table(figures: Mapping[str, Mapping[str, float]], images: int) -> str:
    lines = [f"{'format':<13}{'MB':>7}{'largest difference':>21}{'labels that differ':>21}"]
    for format, row in figures.items():
        labels = f"{row['differing_labels']} of {images:,}"
        lines.append(f"{format:<13}{row['megabytes']:>7.2f}{row['max_difference']:>21.1e}{labels:>21}")
    return "\n".join(lines)


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_replaceable(output: Path) -> None:
    """Make sure that replacing a folder loses nothing but an export.

    Raises:
        UserError: something else is there.
    """
    if output.is_dir():
        names = {path.name for path in output.iterdir()}
        if not names or (RECORD in names and names <= {*FILES.values(), CLASSES, RECORD}):
            return
    elif not output.exists():
        return
    raise UserError(
        f"export.output: {output} is there, and is not what an export made; allowed: a folder that does not "
        "exist, an empty one, or an earlier export, which is replaced"
    )


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `output` when the block ends, and is gone if it fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    # beside it, so that it is on the same disk and can be renamed
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        yield new
        _check_replaceable(output)  # once more: something may have been put there meanwhile
        if output.exists():
            output.rename(old)
        try:
            new.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise


@contextmanager
def _disk_errors(place: str) -> Iterator[None]:
    """Tell what the disk refuses in the block as a user's error."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror or error}") from error


def main() -> None:
    """Parse the command line and export."""
    command(run)


if __name__ == "__main__":
    main()
