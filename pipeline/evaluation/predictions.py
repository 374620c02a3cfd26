"""The predictions on a split, and the Parquet file that keeps them, compact for any number of classes."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation import metrics

if TYPE_CHECKING:
    import pyarrow

MOST_WHOLE = 50  # classes, up to which every probability is kept
TOP = 5  # classes that are kept of each image where there are more
_COLUMNS = ("name", "label", "prediction")  # first; then what `to_parquet` says
_BLOCK = 1 << 24  # probabilities that are ranked at once: 64 MB


@dataclass(frozen=True, eq=False)
class Predictions:
    """The labels of k images, and what a model answers.

    Attributes:
        classes: all their names, in the order of the labels.
        names: of the images.
        labels: (k,) int64.
        top: (k, m) int64, the most probable classes, those first, the first of equals before the others; m is
            `TOP`, or the number of classes where that is less. An image with a probability that is not finite
            has the first class first.
        top_probabilities: (k, m) float32, theirs; of such an image, NaN.
        label_probabilities: (k,) float32, of the labels.
        probabilities: (k, num_classes) float32; None of more than `MOST_WHOLE` classes that were read.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    top: np.ndarray
    top_probabilities: np.ndarray
    label_probabilities: np.ndarray
    probabilities: np.ndarray | None

    @classmethod
    def of(
        cls, classes: Sequence[str], names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray
    ) -> "Predictions":
        """Predictions from (k, num_classes) probabilities; see the attributes."""
        labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float32)
        top, of_top = _ranked(probabilities)
        given = probabilities[np.arange(len(labels)), labels]
        return cls(tuple(classes), tuple(names), labels, top, of_top, given, probabilities)

    def in_order(self, names: Sequence[str]) -> "Predictions | None":
        """The same with its images in the order of these names; None where they are not the same images."""
        if self.names == tuple(names):
            return self
        rows = {name: row for row, name in enumerate(self.names)}
        if rows.keys() != set(names):
            return None
        order = np.array([rows[name] for name in names])
        whole = None if self.probabilities is None else self.probabilities[order]
        return Predictions(
            self.classes,
            tuple(names),
            self.labels[order],
            self.top[order],
            self.top_probabilities[order],
            self.label_probabilities[order],
            whole,
        )

    @property
    def answers(self) -> np.ndarray:
        """(k,) int64, the most probable classes."""
        return self.top[:, 0]

    @property
    def right(self) -> np.ndarray:
        """(k,) bool, whether the answer is the label."""
        right: np.ndarray = self.answers == self.labels
        return right

    @property
    def are_finite(self) -> bool:
        """Whether all probabilities are finite numbers."""
        return bool(np.isfinite(self.top_probabilities).all())

    def mistakes(self) -> np.ndarray:
        """The rows predicted wrong, the most confident first: (j,) int64; see `metrics.by_confidence`."""
        return metrics.by_confidence(self.labels, self.answers, self.top_probabilities[:, 0])

    def least_certain(self) -> np.ndarray:
        """The rows whose two most probable classes are nearest to each other, those first: (k,) int64."""
        return np.argsort(self.top_probabilities[:, 0] - self.top_probabilities[:, 1], kind="stable")

    def to_parquet(self) -> bytes:
        """predictions.parquet, one row an image.

        Its columns are `name`, `label`, `prediction`, and up to `MOST_WHOLE` classes the probability of each
        class, under its name (with ` (class)` added where that is one of the first three). Of more classes:
        `label_probability`, and for the five most probable ones `top_1`, `top_1_probability` and so on.
        Probabilities are float32. Names that are not valid UTF-8 make their column one of bytes.
        """
        import pyarrow
        from pyarrow import parquet

        columns = {
            "name": _texts(self.names),
            "label": self._named(self.labels),
            "prediction": self._named(self.answers),
        }
        if self.probabilities is not None and len(self.classes) <= MOST_WHOLE:
            for name, values in zip(self.classes, self.probabilities.T, strict=True):
                columns[_free(name, {*columns, *self.classes})] = values
        else:
            columns["label_probability"] = self.label_probabilities
            for number in range(self.top.shape[1]):
                columns[f"top_{number + 1}"] = self._named(self.top[:, number])
                columns[f"top_{number + 1}_probability"] = self.top_probabilities[:, number]
        # escapes of ASCII alone: any name comes back as it was
        about = {"classes": json.dumps(self.classes)}
        table = pyarrow.table(columns).replace_schema_metadata(about)
        content = io.BytesIO()
        parquet.write_table(table, content, compression="zstd")
        return content.getvalue()

    @classmethod
    def from_parquet(cls, content: bytes) -> "Predictions":
        """What `to_parquet` wrote, to the last digit."""
        import pyarrow
        from pyarrow import parquet

        table = parquet.read_table(pyarrow.BufferReader(content))
        classes = tuple(json.loads(table.schema.metadata[b"classes"]))
        names = tuple(map(_text, table.column(0).to_pylist()))
        labels = _numbers(table.column(1), classes)
        others = [table.column(number) for number in range(len(_COLUMNS), table.num_columns)]
        if len(classes) <= MOST_WHOLE:
            whole = np.column_stack([column.to_numpy() for column in others])
            return cls.of(classes, names, labels, whole)
        given, *pairs = others
        top = np.column_stack([_numbers(column, classes) for column in pairs[::2]])
        of_top = np.column_stack([column.to_numpy() for column in pairs[1::2]])
        return cls(classes, names, labels, top, of_top, given.to_numpy(), None)

    def _named(self, numbers: np.ndarray) -> "pyarrow.DictionaryArray":
        """Classes by number as a column of their names, each of which is kept once."""
        import pyarrow

        return pyarrow.DictionaryArray.from_arrays(numbers.astype(np.int32), _texts(self.classes))


def _ranked(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable classes and their probabilities; see `Predictions.top`."""
    count, num_classes = probabilities.shape
    top = np.empty((count, min(TOP, num_classes)), np.int64)
    of_top = np.empty(top.shape, np.float32)
    length = max(1, _BLOCK // num_classes)
    for start in range(0, count, length):
        block = probabilities[start : start + length].copy()
        rows, finite = np.arange(len(block)), np.isfinite(block).all(axis=1)
        block[~finite] = np.linspace(0, -1, num_classes)  # the classes in their order
        for place in range(top.shape[1]):
            best = block.argmax(axis=1)
            top[start + rows, place] = best
            of_top[start + rows, place] = np.where(finite, block[rows, best], np.nan)
            block[rows, best] = -np.inf
    return top, of_top


def _texts(texts: Sequence[str]) -> "pyarrow.Array":
    """A column of texts; of bytes where one of them has bytes that are not valid UTF-8."""
    import pyarrow

    try:
        return pyarrow.array(texts, pyarrow.string())
    except UnicodeEncodeError:
        return pyarrow.array([text.encode(errors="surrogateescape") for text in texts], pyarrow.binary())


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")


def _numbers(column: "pyarrow.ChunkedArray", classes: Sequence[str]) -> np.ndarray:
    """A column of classes' names as their numbers: (k,) int64."""
    encoded = column.unify_dictionaries().combine_chunks()
    numbers = {name: number for number, name in enumerate(classes)}
    class_numbers = np.array([numbers[_text(name)] for name in encoded.dictionary.to_pylist()], np.int64)
    return np.asarray(class_numbers[encoded.indices.to_numpy()])


def _free(name: str, taken: set[str]) -> str:
    """The column of a class."""
    shown = name.encode(errors="backslashreplace").decode()
    while shown in _COLUMNS or (shown != name and shown in taken):
        shown += " (class)"
    return shown
