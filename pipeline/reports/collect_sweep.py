"""What a sweep's page is made of, read from the runs of the sweep and of its cells, and from the disk."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from pipeline.dataset import prepare, storage
from pipeline.dataset.prepare import Prepared
from pipeline.inference import report
from pipeline.pages import thumbnails
from pipeline.pages.sweep_data import Cell, Confusion, Epoch, Exhibits, Failed, Findings, Images
from pipeline.reports import importance
from pipeline.runtime.console import few
from pipeline.runtime.credentials import without_password
from pipeline.sources import split_names
from pipeline.sweep import leaderboard, verdict
from pipeline.sweep.cells import ordered
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import artifacts, metric_histories, runs, store, sweep_runs
from pipeline.tracking.trials import CellRun

UI = "http://127.0.0.1:5000"  # where `mlflow ui` is, by default
EXAMPLES, EXAMPLE_SIDE = 12, 96  # images of all classes together, at least one of each; px
MOST_CLASSES = 30  # that examples are shown of


def images_of(run_id: str, cache: Path) -> Prepared | str:
    """The prepared images of a sweep where this machine has them; or a sentence that it has not.

    Nothing is prepared anew: that may take hours, or a download.
    """
    if "metadata.json" not in artifacts.names(run_id, "data"):
        return "The sweep's run does not say which images it had."
    digest = json.loads(artifacts.read(run_id, "data/metadata.json"))["digest"]
    for path in sorted(cache.glob("prepared/*/metadata.json")):
        if storage.digest_of(path.parent) == digest:
            with suppress(prepare.DamagedPrepared):
                return prepare.open_prepared(path.parent)
    return (
        f"The prepared images of this sweep are not on this machine any more (none in {cache}/prepared has "
        "its digest), so none are shown."
    )


def gather(run_id: str, ranking: Ranking, prepared: Prepared | str, exhibits: Exhibits) -> Findings:
    """Everything that a sweep's page shows.

    Args:
        run_id: of the sweep's run.
        ranking: its one ranking.
        prepared: those it was made on, or why they are not there.
        exhibits: of the winner.
    """
    run = runs.get(run_id)
    sweep, settings, metric = sweep_runs.Sweep.from_run(run), run.data.params, ranking.objective.name
    begun = [cell for cell in sweep.cells() if not cell.trial]
    histories = metric_histories.of(cell.run_id for cell in [*ranking.cells, *begun])
    keys = ordered(dict.fromkeys(key for cell in ranking.cells for key in cell.values))
    cells = [_cell(cell, histories[cell.run_id], sweep, keys, metric) for cell in ranking.cells]
    ends = [run.info.end_time or 0, *(cell.ended for cell in cells)]
    split = urlsplit(store.uri())
    served = split.scheme in ("http", "https")
    return Findings(
        run_id=run_id,
        experiment_id=sweep.experiment_id,
        study=sweep.study,
        server=f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path.rstrip('/')}"
        if served
        else UI,
        served=served,
        started=run.info.start_time,
        ended=max(ends) if run.info.status != "RUNNING" else int(datetime.now(UTC).timestamp() * 1000),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        metric=metric,
        total=max(ranking.total, len(cells) + len(begun)),
        keys=keys,
        cells=cells,
        failed=[
            Failed(cell.run_id, histories[cell.run_id].name, cell.reason or "it says no reason")
            for cell in begun
            if cell.status == "FAILED"
        ],
        winner=_confusion(cells[0].run_id, "report") if cells else None,
        worst=_confusion(cells[-1].run_id, "report") if len(cells) > 1 else None,
        test=_test(sweep, cells[0].run_id, metric) if cells else None,
        has_test=sweep.metrics.get(f"images/{split_names.TEST}", 0) > 0,
        verdict=verdict.fitting(run_id, ranking),
        importance=importance.importance(
            [cell.values for cell in cells],
            [cell.scores[metric] for cell in cells],
            ranking.objective.direction,
        ),
        exhibits=exhibits,
        images=_images(run_id, settings, sweep.metrics, prepared),
        environment=_environment(sweep.tags, settings, cells, exhibits),
        repeats=ranking.repeats,
        settings={key: without_password(value) for key, value in sorted(settings.items())},
    )


def _cell(
    cell: CellRun,
    history: metric_histories.History,
    sweep: sweep_runs.Sweep,
    keys: Sequence[str],
    metric: str,
) -> Cell:
    """A cell with its values of all keys; of one that the grid got later, the value that was in force."""
    pairs = zip(history.training, history.validation, strict=False)  # a store may have lost the last of one
    return Cell(
        run_id=cell.run_id,
        name=history.name,
        values={key: cell.values[key] if key in cell.values else sweep.setting(key) for key in keys},
        scores={name: cell.result.scores[name] for name in (*leaderboard.SCORES, metric)},
        best_epoch=cell.result.best_epoch,
        diverged=cell.result.diverged,
        pruned=cell.result.pruned,
        worker=history.worker,
        started=history.started,
        ended=history.ended,
        epochs=[Epoch(after.step, after.timestamp, before.value, after.value) for before, after in pairs],
    )


def _confusion(run_id: str, folder: str) -> Confusion:
    return Confusion(*report.read_confusion(artifacts.read(run_id, f"{folder}/confusion_matrix.json")))


def _test(sweep: sweep_runs.Sweep, winner: str, metric: str) -> tuple[dict[str, float], Confusion] | None:
    if sweep.tags.get("tested_run_id") != winner:
        return None
    names = (*leaderboard.SCORES, metric)
    if any(f"test/{name}" not in sweep.metrics for name in names):
        return None  # a metric that was added later
    scores = {name: sweep.metrics[f"test/{name}"] for name in names}
    return scores, _confusion(sweep.run_id, "test")


def _images(
    run_id: str, settings: Mapping[str, str], metrics: Mapping[str, float], prepared: Prepared | str
) -> Images:
    files = artifacts.names(run_id, "data")
    about = json.loads(artifacts.read(run_id, "data/metadata.json")) if "metadata.json" in files else {}
    names = (split_names.TRAIN, split_names.VALIDATION, split_names.TEST)
    found, missing = (None, prepared) if isinstance(prepared, str) else (prepared, "")
    counts = (
        {name: found.counts(name) for name in names}
        if found
        else {name: int(metrics.get(f"images/{name}", 0)) for name in names}
    )
    return Images(
        source=without_password(settings.get("data.source", "")),
        understood_as=without_password(about.get("understood_as", "")),
        image_size=int(about.get("image_size", 0)),
        counts=counts,
        classes=found.classes if found else (),
        examples=_examples(found) if found else {},
        rejected=_rejected(artifacts.read(run_id, "data/rejected.csv")) if "rejected.csv" in files else [],
        missing=missing,
    )


def _examples(prepared: Prepared) -> dict[str, list[bytes]]:
    """Training images of each class, evenly from all of them."""
    training, each = prepared.indices(split_names.TRAIN), max(1, EXAMPLES // len(prepared.classes))
    found = {}
    for number, name in enumerate(prepared.classes[:MOST_CLASSES]):
        rows = training[prepared.labels[training] == number]
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, each).astype(int))] if len(rows) else rows
        found[name] = [thumbnails.jpeg(np.asarray(prepared.images[row]), EXAMPLE_SIDE) for row in chosen]
    return found


def _rejected(content: bytes) -> list[tuple[str, str]]:
    rows = csv.reader(io.StringIO(content.decode(errors="surrogateescape"), newline=""))
    return [(name, reason) for name, reason in list(rows)[1:]]


def _environment(
    tags: Mapping[str, str], settings: Mapping[str, str], cells: Sequence[Cell], exhibits: Exhibits
) -> list[tuple[str, str]]:
    workers = sorted({cell.worker for cell in cells if cell.worker})
    entries = {
        "Machine of the sweep": tags.get("machine", ""),
        "Workers": few(workers),
        "Dtype policy": settings.get("train.precision", ""),
        "Python": exhibits.python,
        "Packages": ", ".join(exhibits.requirements).replace("==", " "),
        "Commit of the code": tags.get("mlflow.source.git.commit", ""),
        "Seed": settings.get("seed", ""),
    }
    return [(name, value) for name, value in entries.items() if value]
