"""The data of a sweep's page: plain values, collected by pipeline/reports/collect_sweep.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Epoch:
    """One epoch of a cell: when it ended (ms since 1970), and the accuracy on each split, 0 to 1."""

    number: int
    ended: int
    training: float
    validation: float


@dataclass(frozen=True)
class Cell:
    """A finished cell.

    Attributes:
        run_id: Its run.
        name: Its run's name.
        values: By key; of a key that was added to the grid later, the value in force then.
        scores: By name (accuracy, precision, recall, f1 and the ranking metric), on the validation split.
        best_epoch: The epoch whose weights were kept, from 1.
        diverged: Its loss was not finite, or it predicts one class for every image.
        pruned: The pruner stopped it early.
        worker: The machine and worker that trained it.
        started: When its run began; ms since 1970.
        ended: When its run ended; ms since 1970.
        epochs: Those trained, in order.
    """

    run_id: str
    name: str
    values: Mapping[str, Any]
    scores: Mapping[str, float]
    best_epoch: int
    diverged: bool
    pruned: bool
    worker: str
    started: int
    ended: int
    epochs: Sequence[Epoch]


@dataclass(frozen=True)
class Failed:
    """A cell that failed, and why."""

    run_id: str
    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Confusion:
    """Predictions of a split: (num_classes, num_classes) int; rows are true classes, columns predicted."""

    classes: Sequence[str]
    matrix: np.ndarray


@dataclass(frozen=True)
class Exhibit:
    """An image and its prediction.

    Attributes:
        jpeg: The image; with a heatmap, side by side with its overlay.
        name: In the source.
        label: Its class.
        predicted: The class that was predicted.
        probability: Of that class, 0 to 1.
    """

    jpeg: bytes
    name: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Exhibits:
    """The winner's most confident errors and least certain validation images, and its environment.

    Attributes:
        mistakes: Errors, the most confident first.
        uncertain: Images with the smallest margin between the two most probable classes.
        wrong: Number of errors.
        images: Number of validation images.
        missing: Why there are no images; empty if there are.
        method: Of the heatmaps; empty without heatmaps.
        python: The version of Python.
        requirements: Packages with versions, as pip takes them.
    """

    mistakes: Sequence[Exhibit]
    uncertain: Sequence[Exhibit]
    wrong: int
    images: int
    missing: str
    method: str
    python: str
    requirements: Sequence[str]

    @classmethod
    def none(cls, missing: str) -> Self:
        """No exhibits, and why."""
        return cls((), (), 0, 0, missing, "", "", ())


@dataclass(frozen=True)
class Images:
    """The data.

    Attributes:
        source: `data.source`.
        understood_as: How it was read.
        image_size: Side of the square images, px.
        counts: Images by split; if the prepared dataset is present, by split and class.
        classes: Names; empty if the prepared dataset is missing.
        examples: For each class a few images as JPEG.
        rejected: Name and reason of each unusable image.
        missing: Why the prepared dataset is missing; empty if it is present.
    """

    source: str
    understood_as: str
    image_size: int
    counts: Mapping[str, int | Mapping[str, int]]
    classes: Sequence[str]
    examples: Mapping[str, Sequence[bytes]]
    rejected: Sequence[tuple[str, str]]
    missing: str


@dataclass(frozen=True)
class Importance:
    """The share of each parameter in the variance of the scores.

    Attributes:
        shares: Of each key, 0 to 1, the largest first.
        interactions: The share of combinations of keys, 0 to 1; None if the method does not compute it.
        caption: The definition of the shares.
    """

    shares: Mapping[str, float]
    interactions: float | None
    caption: str


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that the page shows of a sweep.

    Attributes:
        run_id: Of its run.
        experiment_id: Of its run and its cells'.
        study: The study's name.
        server: Where MLflow shows runs, without a slash at the end.
        served: Whether that is the tracking server's own address; False: `mlflow ui`'s default one.
        started: When its run began; ms since 1970.
        ended: When the last thing that is known of it ended; ms since 1970.
        made: When this was gathered, as text.
        metric: What ranks the cells.
        total: How many cells it has when it is done.
        keys: Of the grid, in the leaderboard's order.
        cells: The finished ones, best first.
        failed: Those that failed.
        winner: How the winner predicts the validation split; None where no cell is finished.
        worst: The same of the last cell; None where there is no other than the winner.
        test: The winner's scores on the test split, and its predictions there; None: not measured.
        has_test: Whether there is a test split.
        verdict: verdict.json of the sweep's run; None: it has none.
        importance: How far each key decides the scores; or why that is not known, in a sentence.
        exhibits: What only the winner's model shows.
        images: The data.
        environment: Name and value of what it ran with and on.
        settings: Every parameter of the sweep's run, dotted, as text.
        repeats: How many of the finalists' repeats are finished, and how many there are to be.
    """

    run_id: str
    experiment_id: str
    study: str
    server: str
    served: bool
    started: int
    ended: int
    made: str
    metric: str
    total: int
    keys: Sequence[str]
    cells: Sequence[Cell]
    failed: Sequence[Failed]
    winner: Confusion | None
    worst: Confusion | None
    test: tuple[Mapping[str, float], Confusion] | None
    has_test: bool
    verdict: Mapping[str, Any] | None
    importance: Importance | str
    exhibits: Exhibits
    images: Images
    environment: Sequence[tuple[str, str]]
    settings: Mapping[str, str]
    repeats: tuple[int, int] = (0, 0)
