"""Charts of parameter importance and effects, as Vega-Lite specifications: cells in, dicts out.

The browser draws them as SVG at the available width. Text and axes have the page's text colour; the other
colours are distinguishable on light and dark backgrounds.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt

from pipeline.evaluation.objective import Objective
from pipeline.pages import parameter_values
from pipeline.pages.sweep_data import Cell, Importance
from pipeline.runtime.console import shortened

# Distinguishable with any colour vision: after Okabe and Ito, Color Universal Design (2008).
PALETTE = ("#3d8bcd", "#d9772b", "#2a9d78", "#b96fae", "#b39b2c", "#57a9c4", "#c8524a", "#8a9099")
BLUE, RED, GREY = PALETTE[0], "#d0504a", "#8a9099"
WORST_TO_BEST = ("#cf5f55", "#a59a90", "#2f7fc1")
INTERACTIONS = "interactions"
INK, GROUND = "currentColor", "var(--ground)"  # of the page


def importance(found: Importance) -> dict[str, Any]:
    """The importance of each parameter as bars; interactions, if computed, in grey."""
    rows = [{"parameter": _axis_name(key), "share": share} for key, share in found.shares.items()]
    colour: Any = alt.value(BLUE)
    if found.interactions is not None:
        rows.append({"parameter": INTERACTIONS, "share": found.interactions})
        colour = alt.when(alt.datum.parameter == INTERACTIONS).then(alt.value(GREY)).otherwise(colour)
    base = alt.Chart(data(rows), width="container", height=26 * len(rows)).encode(
        x=alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=5), scale=alt.Scale(domainMin=0)),
        y=alt.Y("parameter:N", title=None, sort=None),
        tooltip=["parameter:N", alt.Tooltip("share:Q", format=".1%")],
    )
    bars = base.mark_bar(height=14).encode(color=colour)
    numbers = base.mark_text(align="left", dx=5, color=INK).encode(text=alt.Text("share:Q", format=".0%"))
    return spec(bars + numbers)


def effect(key: str, cells: Sequence[Cell], metric: str) -> dict[str, Any]:
    """Each cell's score by its value of one parameter; for discrete values with mean and deviation."""
    numbers = [cell.values[key] for cell in cells]
    return _scatter(key, cells, metric) if parameter_values.is_range(numbers) else _strips(key, cells, metric)


def _scatter(key: str, cells: Sequence[Cell], metric: str) -> dict[str, Any]:
    numbers = [cell.values[key] for cell in cells]
    x = alt.Scale(type="log") if parameter_values.is_wide(numbers) else alt.Scale(zero=False)
    y = alt.Scale(domain=_span([cell.scores[metric] for cell in cells]), padding=12)
    chart = (
        alt.Chart(_score_rows(key, cells, metric), width="container", height=180)
        .mark_circle(color=BLUE, opacity=0.7)
        .encode(
            x=alt.X("value:Q", title=None, scale=x, axis=alt.Axis(tickCount=4)),
            y=alt.Y("score:Q", title=metric, scale=y, axis=alt.Axis(tickCount=4)),
            tooltip=["cell:N", "value:Q", alt.Tooltip("score:Q", format=".4f")],
        )
    )
    return spec(chart)


def _strips(key: str, cells: Sequence[Cell], metric: str) -> dict[str, Any]:
    found = parameter_values.effects(key, cells, metric)
    rows: list[dict[str, Any]] = [
        {"value": one.text, "cells": one.cells, "mean": one.mean, "deviation": one.deviation or 0.0}
        for one in found
    ]
    for row in rows:
        row |= {"low": row["mean"] - row["deviation"], "high": row["mean"] + row["deviation"]}
    ends = [cell.scores[metric] for cell in cells]
    ends += [row[end] for row in rows for end in ("low", "high")]
    x = alt.X(
        "score:Q", title=None, axis=alt.Axis(tickCount=4), scale=alt.Scale(domain=_span(ends), padding=12)
    )
    y = alt.Y("value:N", title=None, sort=[one.text for one in found])
    deviation = alt.Tooltip("deviation:Q", title="standard deviation", format=".4f")
    means = alt.Chart(data(rows))
    return spec(
        alt.layer(
            alt.Chart(_score_rows(key, cells, metric))
            .mark_circle(color=BLUE, opacity=0.45, size=36, yOffset=7)
            .encode(x=x, y=y, tooltip=["cell:N", alt.Tooltip("score:Q", format=".4f")]),
            means.mark_rule(color=INK, strokeWidth=1.5, yOffset=-5).encode(x="low:Q", x2="high:Q", y=y),
            means.mark_tick(color=INK, thickness=3, size=14, yOffset=-5).encode(
                x="mean:Q",
                y=y,
                tooltip=["value:N", "cells:Q", alt.Tooltip("mean:Q", format=".4f"), deviation],
            ),
        ).properties(width="container", height=34 * len(found))
    )


def _score_rows(key: str, cells: Sequence[Cell], metric: str) -> alt.Data:
    several = parameter_values.is_range([cell.values[key] for cell in cells])
    shown = (lambda value: value) if several else parameter_values.text_of
    return data(
        [
            {"value": shown(cell.values[key]), "score": cell.scores[metric], "cell": cell.name}
            for cell in cells
        ]
    )


def parallel(keys: Sequence[str], cells: Sequence[Cell], metric: str) -> dict[str, Any]:
    """Each cell as a line through its value of each parameter to its score; one or more keys."""
    span = _span([cell.scores[metric] for cell in cells])
    axis = alt.Axis(
        labelAngle=0,
        orient="top",
        grid=True,
        gridOpacity=0.35,
        domain=False,
        ticks=False,
        labelPadding=12,
        labelFontWeight="bold",
    )
    names = [*map(_axis_name, keys), metric]
    x = alt.X("axis:N", sort=names, title=None, scale=alt.Scale(type="point", padding=0.35), axis=axis)
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[-0.06, 1.06]))
    over = alt.selection_point(fields=["cell"], on="pointerover", clear="pointerout", empty=False)
    colours = WORST_TO_BEST if Objective(metric).direction == "maximize" else WORST_TO_BEST[::-1]
    by_score = alt.Color("score:Q", scale=alt.Scale(range=list(colours)), legend=None)
    alike = len({cell.scores[metric] for cell in cells}) == 1
    faint = 0.6 if len(cells) <= 60 else 0.35
    lines = alt.Chart(data(_lines(keys, cells, metric, span)))
    drawn = lines.mark_line(interpolate="monotone").encode(
        x=x,
        y=y,
        detail="cell:N",
        order="place:Q",
        color=alt.value(BLUE) if alike else by_score,
        opacity=alt.condition(over, alt.value(1), alt.value(faint)),
        strokeWidth=alt.condition(over, alt.value(4), alt.value(1.4)),
        tooltip=["cell:N", alt.Tooltip("score:Q", title=metric, format=".4f"), "rank:Q"],
    )
    texts = alt.Chart(data(_labels(keys, cells, metric, span))).encode(x=x, y=y, text="text:N")
    halo = texts.mark_text(align="left", dx=6, fontSize=11, stroke=GROUND, strokeWidth=4)
    labels = texts.mark_text(align="left", dx=6, fontSize=11, color=INK)
    chart = alt.layer(drawn.add_params(over), halo, labels)
    return spec(chart.properties(width="container", height=320))


def _lines(
    keys: Sequence[str], cells: Sequence[Cell], metric: str, span: Sequence[float]
) -> list[dict[str, Any]]:
    """The points of each cell's line; the best cells come last, to be drawn over the others."""
    places = {key: parameter_values.places([cell.values[key] for cell in cells]) for key in keys}
    names, rows = [*map(_axis_name, keys), metric], []
    for rank, cell in reversed([*enumerate(cells)]):
        # within a value, the better cells run above the worse: lines that share values stay apart
        shift = 0.05 * (0.5 - rank / max(len(cells) - 1, 1))
        heights = [places[key][parameter_values.text_of(cell.values[key])] + shift for key in keys]
        heights.append((cell.scores[metric] - span[0]) / (span[1] - span[0]))
        common = {"cell": cell.name, "score": cell.scores[metric], "rank": rank + 1}
        rows += [
            common | {"axis": name, "height": height, "place": place}
            for place, (name, height) in enumerate(zip(names, heights, strict=True))
        ]
    return rows


def _labels(
    keys: Sequence[str], cells: Sequence[Cell], metric: str, span: Sequence[float]
) -> list[dict[str, Any]]:
    """The labels of the axes: each value, for a range its ends, and five scores."""
    rows = []
    for key in keys:
        values = [cell.values[key] for cell in cells]
        places = parameter_values.places(values)
        texts = (
            [*map(parameter_values.text_of, (min(values), max(values)))]
            if parameter_values.is_range(values)
            else [*places]
        )
        axis = _axis_name(key)
        rows += [{"axis": axis, "height": places[text], "text": shortened(text, 18)} for text in texts]
    return rows + [
        {"axis": metric, "height": at, "text": f"{span[0] + at * (span[1] - span[0]):.2f}"}
        for at in (0, 0.25, 0.5, 0.75, 1)
    ]


def _axis_name(key: str) -> str:
    return key.replace("_", " ")


def _span(scores: Sequence[float]) -> list[float]:
    """From the lowest score to the highest, or a little around the only one."""
    low, high = min(scores), max(scores)
    return [low, high] if high > low else [low - 0.05, high + 0.05]


def data(rows: list[dict[str, Any]]) -> alt.Data:
    """Rows as inline data of a chart."""
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]  # Altair's generated classes


def spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as a Vega-Lite specification, in the colours of the page."""
    axis: dict[str, Any] = {
        "labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK, "gridColor": INK,
        "gridOpacity": 0.12, "domainOpacity": 0.4, "tickOpacity": 0.4, "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal", "labelLimit": 150,
    }  # fmt: skip
    legend: dict[str, Any] = {
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "symbolType": "circle",
        "symbolOpacity": 1,
    }
    configured: dict[str, Any] = chart.configure(
        background="transparent",
        font="system-ui, sans-serif",
        axis=alt.AxisConfig(**axis),
        legend=alt.LegendConfig(**legend),
        header=alt.HeaderConfig(labelColor=INK, titleColor=INK),
        view=alt.ViewConfig(stroke=None),
    ).to_dict()
    return configured
