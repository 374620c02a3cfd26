"""Renders a sweep's findings as one HTML file. Nothing is read or fetched."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.evaluation import intervals
from pipeline.pages import charts, curves, extremes, parameter_values, render, thumbnails, timing
from pipeline.pages.summary import asides, verdict
from pipeline.pages.sweep_data import Cell, Confusion, Exhibit, Findings, Importance
from pipeline.runtime.console import column_head, duration

SCORES = ("accuracy", "precision", "recall", "f1")
MOST_CLASSES = 30  # of a confusion matrix
MOST_REJECTED = 50  # images listed
NONE = "–"  # instead of a missing number
PAIRS = 15  # most frequent confusions, listed instead of a larger matrix


def page(found: Findings) -> bytes:
    """The content of report.html."""
    found, paused = timing.without_pauses(found)
    return render(
        "sweep.html.j2",
        subject=_subject(found.images.source),
        found=found,
        verdict=verdict(found),
        asides=asides(found),
        facts=_facts(found),
        scores=_scores(found, found.winner) if found.winner else None,
        board=_board(found),
        failed=[[cell.name, cell.reason, _run(found, cell.run_id, cell.name)] for cell in found.failed],
        finalists=_finalists(found),
        alike=_alike(found),
        effects=_effects(found),
        specs=_specs(found),
        confusions=_confusions(found),
        mistakes=[_thumbnail(exhibit) for exhibit in found.exhibits.mistakes],
        uncertain=[_thumbnail(exhibit) for exhibit in found.exhibits.uncertain],
        counts=_counts(found),
        examples=_examples(found),
        rejected=found.images.rejected[:MOST_REJECTED],
        times=timing.phases(found),
        workers=timing.workers(found),
        duration=duration,
        paused=paused / 1000,
        link=functools.partial(_link, found),
        bundle=bundle(),
    )


def _subject(source: str) -> str:
    """The name of the dataset, for a heading."""
    return "the built-in sample" if source == "sample" else source.rstrip("/").rpartition("/")[2] or source


def _facts(found: Findings) -> list[tuple[str, str]]:
    """The winner's parameters."""
    if not found.cells:
        return []
    winner = found.cells[0]
    return [
        *((column_head(key), parameter_values.text_of(value)) for key, value in winner.values.items()),
        ("Best epoch", f"{winner.best_epoch} of {len(winner.epochs)}"),
        ("Trained in", duration((winner.ended - winner.started) / 1000)),
    ]


def _scores(found: Findings, winner: Confusion) -> dict[str, Any]:
    """The winner's scores, as heads and rows."""
    splits = [("Validation", found.cells[0].scores, winner)]
    if found.test:
        splits.append(("Test", *found.test))
    heads: list[Any] = [""]
    for name, _, confusion in splits:
        images = f"{int(confusion.matrix.sum()):,}"
        heads += [
            {"text": f"{name} ({images} images)", "number": True},
            {"text": "95 % interval", "number": True},
        ]
    ranges = [intervals.of(confusion.matrix) for _, _, confusion in splits]
    rows = []
    for name in _names(found):
        row = [column_head(name)]
        for (_, scores, _), ends in zip(splits, ranges, strict=True):
            row += [_number(scores[name]), "{:.3f} to {:.3f}".format(*ends[name]) if name in ends else "–"]
        rows.append(row)
    return {"heads": heads, "rows": rows}


def _names(found: Findings) -> list[str]:
    """The scores that tables show: the four of every sweep, and the ranking metric."""
    return [*dict.fromkeys([*SCORES, found.metric])]


def _board(found: Findings) -> dict[str, Any]:
    """The leaderboard, as heads and rows."""
    pruned = any(cell.pruned for cell in found.cells)
    numeric = {
        key for key in found.keys if all(parameter_values.is_number(cell.values[key]) for cell in found.cells)
    }
    heads = [
        {"text": "Rank", "number": True},
        *({"text": column_head(key), "number": key in numeric} for key in found.keys),
        *({"text": column_head(name), "number": True} for name in _names(found)),
        *([{"text": "Epochs", "number": True}] if pruned else []),
        "Note",
        "Run",
    ]
    rows = []
    for rank, cell in enumerate(found.cells, start=1):
        notes = ["diverged"] * cell.diverged + ["pruned"] * cell.pruned
        rows.append([
            rank,
            *(
                {"text": parameter_values.text_of(cell.values[key]), "value": cell.values[key]}
                for key in found.keys
            ),
            *(_score(cell.scores[name]) for name in _names(found)),
            *([len(cell.epochs)] if pruned else []),
            {"text": ", ".join(notes), "class": "bad" if cell.diverged else ""},
            _run(found, cell.run_id, cell.name),
        ])  # fmt: skip
    return {"heads": heads, "rows": rows}


def _score(value: float) -> dict[str, Any]:
    return {"text": _number(value), "value": value if math.isfinite(value) else ""}


def _finalists(found: Findings) -> list[list[Any]]:
    """The finalists: cells that were retrained with other seeds."""
    rows = []
    for row in (found.verdict or {}).get("finalists", []):
        rows.append([
            row["name"],
            {"text": f"{row['first_score']:.4f}", "value": row["first_score"]},
            len(row["seeds"]),
            _number(row["mean"]),
            _number(row["spread"]),
            "{:.3f} to {:.3f}".format(*row["interval"]) if row["interval"] else NONE,
            ", ".join(_number(score) for score in row["scores"]) or NONE,
            _run(found, row["run_id"], row["name"]),
        ])  # fmt: skip
    return rows


def _number(value: float | None) -> str:
    """A score to four digits; a dash if it is missing or not finite."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.4f}"


def _alike(found: Findings) -> list[list[Any]]:
    """The cells that are not significantly worse than the winner."""
    return [
        [
            row["name"],
            {"text": f"{row['p_value']:.3f}", "value": row["p_value"]},
            {"text": f"{row['corrected_p_value']:.3f}", "value": row["corrected_p_value"]},
            row["only_winner_right"],
            row["only_other_right"],
            _run(found, row["run_id"], row["name"]),
        ]
        for row in (found.verdict or {}).get("not_significantly_worse", [])
    ]


def _effects(found: Findings) -> list[list[Any]]:
    """Rows of the parameters' values with their scores, without continuous parameters."""
    rows = []
    scored = _scored(found)
    for key in parameter_values.varied(found.keys, scored):
        if parameter_values.is_range([cell.values[key] for cell in scored]):
            continue
        for one in parameter_values.effects(key, scored, found.metric):
            spread = "–" if one.deviation is None else f"{one.deviation:.4f}"
            rows.append([column_head(key), one.text, one.cells, f"{one.mean:.4f}", spread, f"{one.best:.4f}"])
    return rows


def _scored(found: Findings) -> list[Cell]:
    """The cells with a finite score; others cannot be drawn."""
    return [cell for cell in found.cells if math.isfinite(cell.scores[found.metric])]


def _specs(found: Findings) -> dict[str, Any]:
    """The charts, by their names in the template."""
    specs: dict[str, Any] = {"effects": {}}
    if not found.cells:
        return specs
    scored = _scored(found)
    varied = parameter_values.varied(found.keys, scored)
    if isinstance(found.importance, Importance):
        specs["importance"] = charts.importance(found.importance)
    specs["effects"] = {key: charts.effect(key, scored, found.metric) for key in varied}
    if varied:
        specs["parallel"] = charts.parallel(varied, scored, found.metric)
    if found.winner and any(cell.epochs for cell in found.cells):
        totals = found.winner.matrix.sum(axis=1)
        specs["curves"] = curves.curves(found.cells, float(totals.max() / totals.sum()))
    specs["timeline"] = curves.timeline(found.cells, found.started)
    return specs


def _confusions(found: Findings) -> list[dict[str, Any]]:
    """Confusion matrices; with many classes, the most frequent confusions."""
    shown = [("Best cell", found.cells[0], found.winner)] if found.winner else []
    if found.worst:
        shown.append(("Worst cell", found.cells[-1], found.worst))
    return [{"title": title, "cell": cell, **_confusion(confusion)} for title, cell, confusion in shown]


def _confusion(confusion: Confusion) -> dict[str, Any]:
    matrix, classes = confusion.matrix, confusion.classes
    totals = matrix.sum(axis=1, keepdims=True)  # (num_classes, 1)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    if len(classes) > MOST_CLASSES:
        wrong = np.where(np.eye(len(classes), dtype=bool), 0, matrix)
        order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
        pairs = [divmod(int(place), len(classes)) for place in order]
        pairs = [(true, answer) for true, answer in pairs if wrong[true, answer]]
        rows = [
            [classes[true], classes[answer], int(wrong[true, answer]), f"{shares[true, answer]:.0%}"]
            for true, answer in pairs
        ]
        return {"pairs": rows}
    return {
        "classes": classes,
        "cells": [
            [(int(count), float(share)) for count, share in zip(*row, strict=True)]
            for row in zip(matrix, shares, strict=True)
        ],
    }


def _thumbnail(exhibit: Exhibit) -> dict[str, Any]:
    label = f"label {exhibit.label}"
    predicted = f"predicted {exhibit.predicted} {exhibit.probability:.2f}"
    return {
        "source": thumbnails.data_uri(exhibit.jpeg),
        "alt": f"{exhibit.name}: {label}, {predicted}",
        "caption": [label, predicted, exhibit.name],
    }


def _counts(found: Findings) -> dict[str, Any]:
    """Images by class and split, as heads and rows with totals."""
    counts = found.images.counts
    heads = [
        "Class",
        *({"text": name.capitalize(), "number": True} for name in counts),
        {"text": "All", "number": True},
    ]
    by_class = {
        name: [count[name] for count in counts.values() if isinstance(count, Mapping)]
        for name in found.images.classes
    }
    names, which = extremes({name: sum(row) for name, row in by_class.items()})
    rows: list[list[Any]] = [[name, *by_class[name], sum(by_class[name])] for name in names]
    sums = [sum(count.values()) if isinstance(count, Mapping) else count for count in counts.values()]
    rows.append(["All classes", *sums, sum(sums)])
    caption = f"Images by class and split. {which}".strip()
    return {
        "heads": heads,
        "rows": [[name, *map("{:,}".format, numbers)] for name, *numbers in rows],
        "caption": caption,
    }


def _examples(found: Findings) -> list[dict[str, Any]]:
    return [
        {"source": thumbnails.data_uri(content), "alt": f"an image of the class {name}", "caption": [name]}
        for name, contents in found.images.examples.items()
        for content in contents
    ]


def _run(found: Findings, run_id: str, name: str) -> dict[str, Any]:
    return {"text": run_id[:8], "href": _link(found, run_id), "title": f"{name}: run {run_id}"}


def _link(found: Findings, run_id: str) -> str:
    return f"{found.server}/#/experiments/{found.experiment_id}/runs/{run_id}"


@functools.cache
def bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script; takes 2 s once."""
    import vl_convert

    return Markup(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # the stub misses a default
