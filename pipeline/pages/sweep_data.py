"""What a sweep's page is made of: plain values, gathered by pipeline/reports/collect_sweep.py."""

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
        values: The cell's, by key; a key that the grid got later has the value that was in force.
        scores: accuracy, precision, recall and f1 on the validation split.
        best_epoch: The epoch that was kept, from 1.
        diverged: Its loss was not finite, or it predicts one class for every image.
        pruned: It was ended early.
        worker: What trained it: the machine, and the worker on it.
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
    """How the images of a split were predicted: (num_classes, num_classes) int, rows true."""

    classes: Sequence[str]
    matrix: np.ndarray


@dataclass(frozen=True)
class Exhibit:
    """An image with what the model says of it.

    Attributes:
        jpeg: The image, and beside it the image under its heatmap where there is one.
        name: As the source calls it.
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
    """The winner's most telling validation images, and what it was trained with.

    Attributes:
        mistakes: Those predicted wrong, the surest first.
        uncertain: Those whose two most probable classes are nearest to each other.
        wrong: How many are predicted wrong.
        images: How many validation images there are.
        missing: Why there are no images; empty where there are.
        method: Of the heatmaps; empty where there are none.
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
        understood_as: What that was taken for.
        image_size: Side of the square images, px.
        counts: Images by split; then by class where the prepared images are there.
        classes: Names; empty where the prepared images are not there.
        examples: For each class a few images as JPEG.
        rejected: Name and reason of each image that was left out.
        missing: Why the prepared images are not there; empty where they are.
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
    """How far each parameter decides the scores.

    Attributes:
        shares: Of each key, 0 to 1, the largest first.
        interactions: The share of combinations of keys, 0 to 1; None where the method does not see them.
        caption: What the shares are, in sentences.
    """

    shares: Mapping[str, float]
    interactions: float | None
    caption: str


@dataclass(frozen=True, eq=False)
class Findings:
    """What is known of a sweep.

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
