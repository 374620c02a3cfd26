"""The folder of an export: replaced as a whole, and only if every file predicts as the model does."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline.config.schema import ExportFormat
from pipeline.runtime.errors import UserError

FILES: Mapping[ExportFormat, str] = {
    "keras": "model.keras",
    "saved_model": "saved_model",
    "onnx": "model.onnx",
}
CLASSES, RECORD = "classes.json", "export.json"


def compare(
    folder: Path, formats: Sequence[ExportFormat], images: np.ndarray, expected: np.ndarray
) -> dict[str, dict[str, float]]:
    """Compare the predictions of every exported file with the model's.

    Args:
        folder: With a file per format.
        formats: Those exported.
        images: (n, size, size, 3) uint8.
        expected: (n, num_classes) float32, the model's probabilities.

    Returns:
        By format: `megabytes`, `max_difference`, `differing_labels`.
    """
    from pipeline.inference import export

    figures: dict[str, dict[str, float]] = {}
    for format in formats:
        path = folder / FILES[format]
        comparison = export.compare(expected, export.answers_of_file(format, path, images))
        figures[format] = {"megabytes": export.megabytes(path), **asdict(comparison)}
    return figures


def table(figures: Mapping[str, Mapping[str, float]], images: int) -> str:
    """The result of `compare` on so many images, as a table for the console."""
    lines = [f"{'format':<13}{'MB':>7}{'largest difference':>21}{'differing labels':>21}"]
    for format, row in figures.items():
        labels = f"{row['differing_labels']} of {images:,}"
        lines.append(f"{format:<13}{row['megabytes']:>7.2f}{row['max_difference']:>21.1e}{labels:>21}")
    return "\n".join(lines)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, UTF-8."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_replaceable(output: Path) -> None:
    """Check that a path is missing, an empty folder, or an earlier export.

    Raises:
        UserError: It is something else, which is not overwritten.
    """
    if output.is_dir():
        names = {path.name for path in output.iterdir()}
        if not names or (RECORD in names and names <= {*FILES.values(), CLASSES, RECORD}):
            return
    elif not output.exists():
        return
    raise UserError(
        f"export.output: {output} exists and was not written by export; refusing to overwrite it; allowed: a "
        "folder that does not exist, an empty folder, or an earlier export, which is replaced"
    )


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `output` at the end of the block, and is removed if it fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    # in the same parent folder, so that renaming does not cross disks
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        yield new
        check_replaceable(output)  # again: another program may have written to it meanwhile
        if output.exists():
            output.rename(old)
        try:
            new.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise


@contextmanager
def disk_errors(place: str) -> Iterator[None]:
    """Turn an OSError of the block into a UserError that names `place`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror or error}") from error
