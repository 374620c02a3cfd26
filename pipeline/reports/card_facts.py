"""What a model card is made of: facts about a training, and the registered version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.metrics import Report

FOLDER, CARD, SHEET = "card", "model_card.md", "mistakes.png"  # among a run's artifacts

MOST_MISTAKES = 8  # that a card shows


@dataclass(frozen=True)
class Images:
    """Facts about the prepared images.

    Attributes:
        counts: Images by split, then by class.
        rejected: How many were left out: unreadable, without a label, or identical to a held-out one.
        identical: How many have another with the same pixels, and the groups that they form.
    """

    counts: Mapping[str, Mapping[str, int]]
    rejected: int
    identical: tuple[int, int]


@dataclass(frozen=True)
class WinnerComparison:
    """How sure it is that a sweep's winner is the best of its cells.

    Attributes:
        not_significantly_worse: Names of the cells that are not significantly worse.
        compared: With how many others it was compared.
        images: Of the validation split, on which it was.
        method: The paired test, its level and its correction.
        seeds: With how many fresh seeds it was trained again; 0 where no mean over these ranks it.
        finalists: How many cells were trained with so many; their means ranked them.
        mean: Of the metric over the fresh seeds.
        spread: Its standard deviation from seed to seed; None of fewer than two.
    """

    not_significantly_worse: Sequence[str]
    compared: int
    images: int
    method: str
    seeds: int
    finalists: int
    mean: float
    spread: float | None


@dataclass(frozen=True)
class LeaderboardEntry:
    """A cell's place in its sweep's leaderboard.

    Attributes:
        sweep_run_id: The sweep's run.
        study: The study's name.
        rank: From 1.
        cells: How many are finished.
        metric: What ranks them, on the validation split.
        value: The cell's: a finalist's mean over fresh seeds where means rank them, else its own.
        other: The name and value of the next cell where this one is the best, else of the best; None where
            there is no other.
        comparison: Where it is the winner that the sweep has named, and was compared with others.
        sweep_ended: Whether the sweep had ended when the card was made, with every cell finished or failed.
        failed: How many cells failed.
        by_mean: Whether means over fresh seeds rank the finalists.
    """

    sweep_run_id: str
    study: str
    rank: int
    cells: int
    metric: str
    value: float
    other: tuple[str, float] | None
    comparison: WinnerComparison | None = None
    sweep_ended: bool = True
    failed: int = 0
    by_mean: bool = False


@dataclass(frozen=True)
class Mistake:
    """An image that was predicted wrong, and the probability that the wrong class was given."""

    name: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts about a training.

    Attributes:
        run_id: Its run.
        run_name: That run's name.
        trained: When it began, as text.
        best_epoch: The epoch that was kept, from 1.
        epochs: How many were trained.
        diverged: Its loss was not finite, or it predicts one class for every image.
        digest: Of the prepared images.
        params: All of the run's, dotted.
        images: None where they are not to be had any more.
        missing: Why they are not; else empty.
        entry: None where it is no cell of a sweep.
        validation: Its report.
        test: The run that measured it on the test split, and its report there; None where none did.
        mistakes: On the validation split, the most confident first, at most `MOST_MISTAKES`.
    """

    run_id: str
    run_name: str
    trained: str
    best_epoch: int
    epochs: int
    diverged: bool
    digest: str
    params: Mapping[str, str]
    images: Images | None
    missing: str
    entry: LeaderboardEntry | None
    validation: Report
    test: tuple[str, Report] | None
    mistakes: Sequence[Mistake]

    @property
    def metric(self) -> str:
        """What ranked the training: its sweep's metric as it ranks now; of one by itself, `sweep.metric`."""
        return self.entry.metric if self.entry else self.params["sweep.metric"]


@dataclass(frozen=True)
class Registered:
    """The version that a card is of.

    Attributes:
        name: Of the registered model.
        version: Its number.
        run_id: The run that keeps the card.
        python: The version of Python that the model was logged with.
        requirements: Pinned packages that it needs, as pip takes them.
    """

    name: str
    version: str
    run_id: str
    python: str
    requirements: Sequence[str]
