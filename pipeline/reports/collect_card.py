"""What the store and the prepared images tell of a training: the facts of its model card."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.dataset.prepare import Prepared
from pipeline.evaluation import metrics
from pipeline.evaluation.predictions import Predictions
from pipeline.figures import canvas, contact_sheet, fonts
from pipeline.inference import report
from pipeline.reports.card_facts import (
    MOST_MISTAKES,
    Facts,
    Images,
    LeaderboardEntry,
    Mistake,
    WinnerComparison,
)
from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.sources import split_names
from pipeline.sweep import ranking, verdict
from pipeline.sweep.cells import Cell
from pipeline.sweep.selection import has_ended
from pipeline.tracking import artifacts, runs, sweep_runs
from pipeline.tracking.trials import Trial


def facts(run_id: str, digest: str, prepared: Prepared | UserError) -> Facts:
    """Facts about a training; nothing is predicted, all scores are of predictions that were recorded.

    Args:
        run_id: Of a finished training, or a sweep's cell.
        digest: Of the images that it was trained on.
        prepared: Those that its parameters name today, or why they cannot be prepared.
    """
    run = runs.get(run_id)
    trial, params = Trial.from_run(run), run.data.params
    validation = report.recorded_predictions(run_id)
    missing = _missing(prepared, digest, validation)
    return Facts(
        run_id=run_id,
        run_name=run.info.run_name,
        trained=datetime.fromtimestamp(run.info.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        best_epoch=trial.best_epoch,
        epochs=trial.epochs,
        diverged=trial.diverged,
        digest=digest,
        params=params | {"data.source": without_password(params["data.source"])},
        images=None if missing or isinstance(prepared, UserError) else _images_of(prepared),
        missing=missing,
        entry=_entry(run_id),
        validation=_report(run_id, "report"),
        test=_test(run_id),
        mistakes=_mistakes(validation),
    )


def sheet(mistakes: Sequence[Mistake], prepared: Prepared) -> bytes:
    """A PNG of the images that were predicted wrong, numbered as in the card; one mistake or more."""
    rows = {name: row for row, name in enumerate(prepared.names)}
    images = np.stack([prepared.images[rows[mistake.name]] for mistake in mistakes])
    captions = [
        f"{number}. label {fonts.short(mistake.label)}\n"
        f"predicted {fonts.short(mistake.predicted)}\n{mistake.probability:.4f}"
        for number, mistake in enumerate(mistakes, start=1)
    ]
    return canvas.png(contact_sheet.draw(images, captions, columns=4, max_lines=3))


def _missing(prepared: Prepared | UserError, digest: str, validation: Predictions) -> str:
    """Why the images are not those that a training had; empty where they are."""
    if isinstance(prepared, UserError):
        return f"the images cannot be prepared any more: {prepared}"
    if prepared.digest != digest:
        return "the images have changed since the training"
    # the digest does not depend on names
    if not set(validation.names) <= set(prepared.names):
        return "the images have other names since the training"
    return ""


def _images_of(prepared: Prepared) -> Images:
    return Images(
        counts={
            split: prepared.counts(split)
            for split in (split_names.TRAIN, split_names.VALIDATION, split_names.TEST)
        },
        rejected=len(prepared.rejected),
        identical=(sum(map(len, prepared.identical)), len(prepared.identical)),
    )


def _entry(run_id: str) -> LeaderboardEntry | None:
    """Where a cell stands among the cells of its sweep that are finished by now."""
    sweep = sweep_runs.sweep_of(run_id)
    if sweep is None:
        return None
    ranked = ranking.of(sweep)
    rank, metric = ranked.rank_of(run_id), ranked.objective.name
    if rank is None:
        raise UserError(f"run {run_id} is a cell that is not finished, or was deleted; name another")
    said = verdict.fitting(sweep.run_id, ranked)
    # of the best cell, the next one shows the margin
    others = ranked.cells[1:2] if rank == 1 else ranked.cells[:1]
    other = [(Cell(cell.values).name, ranked.value(cell)) for cell in others]
    return LeaderboardEntry(
        sweep_run_id=sweep.run_id,
        study=sweep.study,
        rank=rank,
        cells=len(ranked.cells),
        metric=metric,
        value=ranked.value(ranked.cells[rank - 1]),
        other=other[0] if other else None,
        comparison=_comparison(said) if said and said["winner"]["run_id"] == run_id else None,
        sweep_ended=has_ended(sweep),
        failed=len(ranked.failed),
        by_mean=ranked.by_mean,
    )


def _comparison(said: Mapping[str, Any]) -> WinnerComparison | None:
    """What a sweep's verdict says of its winner; None where it was compared with no other."""
    of_winner = [one for one in said["finalists"] if one["run_id"] == said["winner"]["run_id"]]
    seeds: Mapping[str, Any] = (
        of_winner[0] if said["ranked_by_mean"] else {"seeds": [], "mean": 0.0, "spread": None}
    )
    return WinnerComparison(
        not_significantly_worse=[entry["name"] for entry in said["not_significantly_worse"]],
        compared=said["compared"],
        images=said["images"],
        method=said["method"],
        seeds=len(seeds["seeds"]),
        finalists=len(said["finalists"]),
        mean=seeds["mean"],
        spread=seeds["spread"],
    )


def _test(run_id: str) -> tuple[str, metrics.Report] | None:
    tested = sweep_runs.test_run_id_of(run_id)
    if tested is None:
        return None
    return tested, _report(tested, "test")


def _report(run_id: str, folder: str) -> metrics.Report:
    """What a run's predictions were reported as; incomplete for many classes."""
    loss = runs.get(run_id).data.metrics.get(f"{folder}/loss", math.nan)
    return report.read_classification(lambda name: artifacts.read(run_id, f"{folder}/{name}"), loss)


def _mistakes(predictions: Predictions) -> list[Mistake]:
    return [
        Mistake(
            name=predictions.names[row],
            label=predictions.classes[predictions.labels[row]],
            predicted=predictions.classes[predictions.answers[row]],
            probability=float(predictions.top_probabilities[row, 0]),
        )
        for row in predictions.mistakes()[:MOST_MISTAKES]
    ]
