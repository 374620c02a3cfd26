"""Learning curves and the timeline of workers, as Vega-Lite specifications."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import altair as alt

from pipeline.pages import parameter_values
from pipeline.pages.charts import BLUE, GREY, GROUND, INK, PALETTE, RED, data, spec
from pipeline.pages.sweep_data import Cell, Epoch
from pipeline.runtime.console import shortened

MOST_EPOCHS = 60  # drawn per cell
FEW_EPOCHS = 12  # up to which each epoch has a dot
STATES = {"finished": BLUE, "diverged": RED, "pruned": GREY}
UNITS = {"seconds": 1e3, "minutes": 6e4, "hours": 3.6e6}  # ms
MOST_UNITS = 300  # on a time axis; longer ones use the next larger unit


def curves(cells: Sequence[Cell], chance: float) -> dict[str, Any]:
    """A small chart for each cell: accuracy over epochs, on validation (line) and in training (dashed).

    The page sets the number of columns.

    Args:
        cells: Best first; at least one with an epoch.
        chance: Accuracy of always predicting the most frequent class, 0 to 1.
    """
    rows = [row for rank, cell in enumerate(cells, start=1) for row in _curve_rows(rank, cell)]
    most = max(len(cell.epochs) for cell in cells)
    accuracies = [chance, *(row[key] for row in rows for key in ("validation", "training"))]
    low = math.floor(10 * min(accuracies)) / 10
    high = min(max(math.ceil(10 * max(accuracies)) / 10, low + 0.3), 1)
    # the same for all, so that they compare at a glance
    scale = alt.Scale(domain=[low, high], nice=False)
    axis = alt.Axis(values=[low, high], format=".1f")
    x = alt.X(
        "epoch:Q",
        title=None,
        scale=alt.Scale(domain=[1 - 0.04 * most, 1.04 * most], nice=False),
        axis=alt.Axis(values=sorted({1, most}), format="d", grid=False),
    )
    training, validation = (
        alt.Y(f"{key}:Q", title=None, scale=scale, axis=axis) for key in ("training", "validation")
    )
    colour = _rate_colour([cell.values.get("learning_rate") for cell in cells])
    point = alt.OverlayMarkDef(size=14) if most <= FEW_EPOCHS else False  # one epoch alone has no line
    tooltip = [alt.Tooltip("name:N", title="cell"), "epoch:Q"]
    tooltip += [alt.Tooltip(f"{key}:Q", format=".4f") for key in ("validation", "training")]
    base = alt.Chart()
    layers = alt.layer(
        base.mark_rule(color=INK, opacity=0.45, strokeDash=[2, 3]).encode(y=alt.datum(chance, scale=scale)),
        base.mark_line(strokeWidth=1, opacity=0.6, strokeDash=[4, 2]).encode(x=x, y=training, color=colour),
        base.mark_line(strokeWidth=2, point=point).encode(x=x, y=validation, color=colour, tooltip=tooltip),
        base.mark_text(color=RED, align="right", fontSize=10.5, fontWeight="bold")
        .encode(x=alt.value("width"), y=alt.value(8), text="mark:N")
        .transform_filter("datum.mark"),
        data=data(rows),
        height=70,
    )
    head = alt.Header(
        title=None,
        labelExpr="split(datum.label, '\\n')",
        labelFontSize=10.5,
        labelPadding=4,
        labelAnchor="start",
        labelLineHeight=13,
        labelLimit=0,
    )
    order = [*dict.fromkeys(row["cell"] for row in rows)]
    facets = layers.facet(facet=alt.Facet("cell:N", sort=order, header=head), columns=4)
    return spec(facets.properties(spacing={"row": 14, "column": 18}))


def timeline(cells: Sequence[Cell], since: int) -> dict[str, Any]:
    """The cells of each worker over time.

    Args:
        cells: One or more.
        since: Start of the axis, in ms since 1970.
    """
    length = max(cell.ended for cell in cells) - since  # ms
    unit = next((name for name, ms in UNITS.items() if length / ms <= MOST_UNITS), "hours")
    rows = [
        {
            "worker": cell.worker or "–",
            "from": (cell.started - since) / UNITS[unit],
            "to": (cell.ended - since) / UNITS[unit],
            "cell": cell.name,
            "seconds": (cell.ended - cell.started) / 1000,
            "state": "diverged" if cell.diverged else "pruned" if cell.pruned else "finished",
        }
        for cell in cells
    ]
    states = [name for name in STATES if any(row["state"] == name for row in rows)]
    colour = alt.Color(
        "state:N",
        title=None,
        scale=alt.Scale(domain=states, range=[STATES[name] for name in states]),
        legend=alt.Legend(orient="top") if states != ["finished"] else None,
    )
    workers = {row["worker"] for row in rows}
    chart = alt.Chart(data(rows), width="container", height=30 * len(workers))
    return spec(
        chart.mark_bar(height=18, stroke=GROUND, strokeWidth=1).encode(
            x=alt.X("from:Q", title=f"{unit} since the start of the sweep", scale=alt.Scale(domainMin=0)),
            x2="to:Q",
            y=alt.Y("worker:N", title=None, sort="ascending"),
            color=colour,
            tooltip=["cell:N", "state:N", alt.Tooltip("seconds:Q", format=".1f")],
        )
    )


def _curve_rows(rank: int, cell: Cell) -> list[dict[str, Any]]:
    title = _title(rank, cell)
    rows = [
        {
            "cell": title,
            "name": cell.name,
            "epoch": epoch.number,
            "rate": cell.values.get("learning_rate"),
            "validation": round(epoch.validation, 5),
            "training": round(epoch.training, 5),
        }
        for epoch in _some(cell.epochs)
    ]
    for row in rows[:1]:
        row["mark"] = "diverged" if cell.diverged else ""
    return rows


def _some(epochs: Sequence[Epoch]) -> list[Epoch]:
    """At most about `MOST_EPOCHS` epochs, evenly spaced, with the last one."""
    step = max(math.ceil(len(epochs) / MOST_EPOCHS), 1)
    return [*reversed(epochs[::-1][::step])]


def _rate_colour(rates: Sequence[float | None]) -> Any:
    """The colour of lines by learning rate: categorical up to eight rates, else a continuous scale."""
    distinct = sorted({rate for rate in rates if rate is not None})
    if len(distinct) < 2:
        return alt.value(BLUE)
    legend = alt.Legend(orient="top", title="learning rate")
    if len(distinct) <= len(PALETTE):
        scale = alt.Scale(domain=distinct, range=list(PALETTE[: len(distinct)]))
        return alt.Color("rate:O", scale=scale, legend=legend)
    scale = alt.Scale(type="log", range=[BLUE, "#a59a90", PALETTE[1]])
    return alt.Color("rate:Q", scale=scale, legend=legend)


def _title(rank: int, cell: Cell) -> str:
    texts = ", ".join(shortened(parameter_values.text_of(value), 24) for value in cell.values.values())
    return "\n".join(textwrap.wrap(f"#{rank} {texts}", 28, max_lines=2, placeholder="…"))
