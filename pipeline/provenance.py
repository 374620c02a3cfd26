"""What the store and the prepared pictures tell of a training: the facts of its model card."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline import figures, lettering, metrics, report
from pipeline.credentials import without_password
from pipeline.data import splits
from pipeline.data.prepared import Prepared
from pipeline.errors import UserError
from pipeline.facts import MOST_MISTAKES, Facts, Mistake, Pictures, Place, Victory
from pipeline.predictions import Predictions
from pipeline.selection import is_settled
from pipeline.sweep import ranking, verdict
from pipeline.sweep.cells import Cell
from pipeline.tracking import artifacts, runs, trials


def facts(run_id: str, digest: str, pictures: Prepared | UserError) -> Facts:
    """What is known of a training; nothing is predicted, all scores are of predictions that were recorded.

    Args:
        run_id: Of a finished training, or a sweep's cell.
        digest: Of the pictures that it was trained on.
        pictures: Those that its parameters name today, or why they cannot be prepared.
    """
    run = runs.get(run_id)
    trial, params = trials.Trial.of(run), run.data.params
    validation = report.read_predictions(artifacts.read(run_id, f"report/{report.PREDICTIONS}"))
    missing = _missing(pictures, digest, validation)
    return Facts(
        run_id=run_id,
        run_name=run.info.run_name,
        trained=datetime.fromtimestamp(run.info.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        best_epoch=trial.best_epoch,
        epochs=trial.epochs,
        diverged=trial.diverged,
        digest=digest,
        params=params | {"data.source": without_password(params["data.source"])},
        pictures=None if missing else _known(pictures),
        missing=missing,
        place=_place(run_id),
        validation=_report(run_id, "report"),
        test=_test(run_id),
        mistakes=_mistakes(validation),
    )


def sheet(mistakes: Sequence[Mistake], pictures: Prepared) -> bytes:
    """A PNG of the pictures that were predicted wrong, numbered as in the card; one mistake or more."""
    rows = {name: row for row, name in enumerate(pictures.names)}
    images = np.stack([pictures.images[rows[mistake.name]] for mistake in mistakes])
    captions = [
        f"{number}. label {lettering.short(mistake.label)}\n"
        f"predicted {lettering.short(mistake.predicted)}\n{mistake.probability:.4f}"
        for number, mistake in enumerate(mistakes, start=1)
    ]
    return figures.png(figures.contact_sheet(images, captions, columns=4, most_lines=3))


def _missing(pictures: Prepared | UserError, digest: str, validation: Predictions) -> str:
    """Why the pictures are not those that a training had; empty where they are."""
    if isinstance(pictures, UserError):
        return f"the pictures cannot be prepared any more: {pictures}"
    if pictures.digest != digest:
        return "the pictures have changed since the training"
    # the digest does not depend on names
    if not set(validation.names) <= set(pictures.names):
        return "the pictures have other names since the training"
    return ""


def _known(pictures: Prepared) -> Pictures:
    return Pictures(
        counts={split: pictures.counts(split) for split in (splits.TRAIN, splits.VALIDATION, splits.TEST)},
        rejected=len(pictures.rejected),
        identical=(sum(map(len, pictures.identical)), len(pictures.identical)),
    )


def _place(run_id: str) -> Place | None:
    """Where a cell stands among the cells of its sweep that are finished by now."""
    sweep = trials.sweep_of(run_id)
    if sweep is None:
        return None
    ranked = ranking.of(sweep)
    rank, metric = ranked.rank_of(run_id), ranked.objective.name
    if rank is None:
        raise UserError(f"run {run_id} is a cell that is not finished, or was deleted; name another")
    said = verdict.fitting(sweep.run_id, ranked)
    # of the best cell, the next one tells by how little it won
    others = ranked.cells[1:2] if rank == 1 else ranked.cells[:1]
    other = [(Cell(cell.values).name, ranked.value(cell)) for cell in others]
    return Place(
        sweep_run_id=sweep.run_id,
        study=sweep.study,
        rank=rank,
        cells=len(ranked.cells),
        metric=metric,
        value=ranked.value(ranked.cells[rank - 1]),
        other=other[0] if other else None,
        victory=_victory(said) if said and said["winner"]["run_id"] == run_id else None,
        settled=is_settled(sweep),
        failed=len(ranked.failed),
        by_mean=ranked.by_mean,
    )


def _victory(said: Mapping[str, Any]) -> Victory | None:
    """What a sweep's verdict says of its winner; None where it was compared with no other."""
    of_winner = [one for one in said["finalists"] if one["run_id"] == said["winner"]["run_id"]]
    seeds = of_winner[0] if said["ranked_by_mean"] else {"seeds": [], "mean": 0.0, "spread": None}
    return Victory(
        alike=[entry["name"] for entry in said["indistinguishable"]],
        compared=said["compared"],
        pictures=said["pictures"],
        level=said["level"],
        seeds=len(seeds["seeds"]),
        finalists=len(said["finalists"]),
        mean=seeds["mean"],
        spread=seeds["spread"],
    )


def _test(run_id: str) -> tuple[str, metrics.Report] | None:
    tested = trials.tested_in(run_id)
    if tested is None:
        return None
    return tested, _report(tested, "test")


def _report(run_id: str, folder: str) -> metrics.Report:
    """What a run's predictions were reported as; they are not complete where there are many classes."""
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
