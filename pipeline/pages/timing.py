"""How a sweep's time was spent, as table rows."""

import statistics
from dataclasses import replace
from itertools import pairwise
from typing import Any

from pipeline.pages.sweep_data import Findings
from pipeline.runtime.console import duration

MIN_PAUSE_MS = 60_000  # ms
MIN_PAUSE_STEPS = 10  # median steps of a cell without any event; the sweep was stopped then


def without_pauses(found: Findings) -> tuple[Findings, int]:
    """The findings with pauses removed from all times, and the length of the pauses in ms.

    Runs do not record when a sweep was stopped and resumed. A pause is a long time in which no cell started,
    ended or finished an epoch.
    """
    moments = [[cell.started, *(epoch.ended for epoch in cell.epochs), cell.ended] for cell in found.cells]
    steps = [after - before for own in moments for before, after in pairwise(own)]
    if not steps:
        return found, 0
    least = max(MIN_PAUSE_MS, MIN_PAUSE_STEPS * statistics.median(steps))
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
    """The phases before, during and after the cells, with durations; empty if no cell is finished."""
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
        durations = [{"text": duration(time / 1000), "value": time} for time in times]
        rows.append([worker or "–", len(own), *durations])
    return rows


def _ends(found: Findings) -> tuple[int, int]:
    """The start of the first cell and the end of the last one, in ms since 1970."""
    return min(cell.started for cell in found.cells), max(cell.ended for cell in found.cells)
