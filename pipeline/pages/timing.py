"""Where a sweep's time went, as rows of tables."""

import statistics
from dataclasses import replace
from itertools import pairwise
from typing import Any

from pipeline.pages.sweep_data import Findings
from pipeline.runtime.console import duration

SHORTEST_PAUSE = 60_000  # ms
MANY_STEPS = 10  # so many times as long as a step of a cell usually takes, nothing happened: it was stopped


def without_pauses(found: Findings) -> tuple[Findings, int]:
    """Findings on a clock that stood still while the sweep was stopped, and for how long that was, in ms.

    Runs do not tell when a sweep was stopped and gone on with; that no cell began, ended or got an epoch for
    long does.
    """
    moments = [[cell.started, *(epoch.ended for epoch in cell.epochs), cell.ended] for cell in found.cells]
    steps = [after - before for own in moments for before, after in pairwise(own)]
    if not steps:
        return found, 0
    least = max(SHORTEST_PAUSE, MANY_STEPS * statistics.median(steps))
    events = sorted({found.started, found.ended, *(moment for own in moments for moment in own)})
    pauses = [(before, after) for before, after in pairwise(events) if after - before > least]

    def at(moment: int) -> int:
        return moment - sum(after - before for before, after in pauses if after <= moment)

    cells = [
        replace(
            cell,
            started=at(cell.started),
            ended=at(cell.ended),
            epochs=[replace(epoch, ended=at(epoch.ended)) for epoch in cell.epochs],
        )
        for cell in found.cells
    ]
    return replace(found, cells=cells, ended=at(found.ended)), found.ended - at(found.ended)


def phases(found: Findings) -> list[list[str]]:
    """What was done before, with and after the cells, and how long; nothing where no cell is finished."""
    if not found.cells:
        return []
    first, last = _ends(found)
    busy = sum(cell.ended - cell.started for cell in found.cells)
    at_once = f"{len(found.cells)} trained, {busy / max(last - first, 1):.1f} at once on average"
    rows = [
        ("Before the first cell", "preparing the images, starting workers", first - found.started),
        ("Cells", at_once, last - first),
        ("After the last cell", "ranking, the winner's test, this page", max(found.ended - last, 0)),
    ]
    return [[name, what, duration(time / 1000)] for name, what, time in rows]


def workers(found: Findings) -> list[list[Any]]:
    """Each worker's cells and times: busy, to the first epoch's end, in further epochs, recording, idle."""
    if not found.cells:
        return []
    first, last = _ends(found)
    rows = []
    for worker in sorted({cell.worker for cell in found.cells}):
        own = [cell for cell in found.cells if cell.worker == worker]
        trained = [cell for cell in own if cell.epochs]
        busy = sum(cell.ended - cell.started for cell in own)
        times = (
            busy,
            sum(cell.epochs[0].ended - cell.started for cell in trained),
            sum(cell.epochs[-1].ended - cell.epochs[0].ended for cell in trained),
            sum(cell.ended - cell.epochs[-1].ended for cell in trained),
            max(last - first - busy, 0),
        )
        told = [{"text": duration(time / 1000), "value": time} for time in times]
        rows.append([worker or "–", len(own), *told])
    return rows


def _ends(found: Findings) -> tuple[int, int]:
    """When the first cell began, and when the last one ended."""
    return min(cell.started for cell in found.cells), max(cell.ended for cell in found.cells)
