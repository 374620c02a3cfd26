"""A sweep's page: what is known of it in, one HTML file out; nothing is read or fetched."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.evaluation import intervals
from pipeline.pages import charts, curves, extremes, parameter_values, render, thumbnails, timing
from pipeline.pages.summary import asides, verdict
from pipeline.pages.sweep_data import Cell, Confusion, Exhibit, Findings, Importance
from pipeline.runtime.console import duration

SCORES = ("accuracy", "precision", "recall", "f1")
HEADS = {"f1": "F1"}
MOST_CLASSES = 30  # up to which a confusion matrix is a table
MOST_REJECTED = 50  # that are listed
NONE = "–"  # in place of a number that there is not
PAIRS = 15  # confusions that are listed where there are more classes


def page(found: Findings) -> bytes:
    """The page as a file."""
    found, paused = timing.without_pauses(found)
    return render(
        "sweep.html.j2",
        subject=_subject(found.images.source),
        found=found,
        verdict=verdict(found),
        asides=asides(found),
        facts=_facts(found),
        scores=_scores(found) if found.cells else None,
        board=_board(found),
        failed=_failed(found),
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
    """What was swept, for a heading."""
    return "the built-in sample" if source == "sample" else source.rstrip("/").rpartition("/")[2] or source


def _facts(found: Findings) -> list[tuple[str, str]]:
    """The winner's parameters."""
    if not found.cells:
        return []
    winner = found.cells[0]
    chosen = [(_head(key), parameter_values.text_of(value)) for key, value in winner.values.items()]
    trained = f"{winner.best_epoch} of {len(winner.epochs)}"
    return [
        *chosen,
        ("Best epoch", trained),
        ("Trained in", duration((winner.ended - winner.started) / 1000)),
    ]


def _scores(found: Findings) -> dict[str, Any]:
    """The winner's scores, as heads and rows."""
    splits = [("Validation", found.cells[0].scores, found.winner)]
    if found.test:
        splits.append(("Test", *found.test))
    heads = [""]
    for name, _, confusion in splits:
        images = f"{int(confusion.matrix.sum()):,}"
        heads += [
            {"text": f"{name} ({images} images)", "number": True},
            {"text": "95 % interval", "number": True},
        ]
    ranges = [intervals.of(confusion.matrix) for _, _, confusion in splits]
    rows = []
    for name in _names(found):
        row = [_head(name)]
        for (_, scores, _), ends in zip(splits, ranges, strict=True):
            row += [_number(scores[name]), "{:.3f} to {:.3f}".format(*ends[name]) if name in ends else "–"]
        rows.append(row)
    return {"heads": heads, "rows": rows}


def _names(found: Findings) -> list[str]:
    """The scores that tables show: always the same four, and what ranks the cells."""
    return [*dict.fromkeys([*SCORES, found.metric])]


def _board(found: Findings) -> dict[str, Any]:
    """The leaderboard, in the original's columns."""
    pruned = any(cell.pruned for cell in found.cells)
    numeric = {
        key for key in found.keys if all(parameter_values.is_number(cell.values[key]) for cell in found.cells)
    }
    heads = [
        {"text": "Rank", "number": True},
        *({"text": _head(key), "number": key in numeric} for key in found.keys),
        *({"text": _head(name), "number": True} for name in _names(found)),
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


def _failed(found: Findings) -> list[list[Any]]:
    return [[cell.name, cell.reason, _run(found, cell.run_id, cell.name)] for cell in found.failed]


def _finalists(found: Findings) -> list[list[Any]]:
    """The cells that were trained again with other seeds."""
    rows = []
    for told in (found.verdict or {}).get("finalists", []):
        rows.append([
            told["name"],
            {"text": f"{told['first_score']:.4f}", "value": told["first_score"]},
            len(told["seeds"]),
            _number(told["mean"]),
            _number(told["spread"]),
            "{:.3f} to {:.3f}".format(*told["interval"]) if told["interval"] else NONE,
            ", ".join(_number(score) for score in told["scores"]) or NONE,
            _run(found, told["run_id"], told["name"]),
        ])  # fmt: skip
    return rows


def _number(value: float | None) -> str:
    """A score to four digits; a dash where there is none, or where it is not finite."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.4f}"


def _alike(found: Findings) -> list[list[Any]]:
    """The cells that are not significantly worse than the winner."""
    return [
        [
            told["name"],
            {"text": f"{told['p_value']:.3f}", "value": told["p_value"]},
            {"text": f"{told['corrected_p_value']:.3f}", "value": told["corrected_p_value"]},
            told["only_winner_right"],
            told["only_other_right"],
            _run(found, told["run_id"], told["name"]),
        ]
        for told in (found.verdict or {}).get("not_significantly_worse", [])
    ]


def _effects(found: Findings) -> list[list[Any]]:
    """Each parameter's values with their cells and scores, but those of a range."""
    rows = []
    scored = _scored(found)
    for key in parameter_values.varied(found.keys, scored):
        if parameter_values.is_range([cell.values[key] for cell in scored]):
            continue
        for one in parameter_values.effects(key, scored, found.metric):
            spread = "–" if one.deviation is None else f"{one.deviation:.4f}"
            rows.append([_head(key), one.text, one.cells, f"{one.mean:.4f}", spread, f"{one.best:.4f}"])
    return rows


def _scored(found: Findings) -> list[Cell]:
    """The cells with a finite score, which alone can be drawn."""
    return [cell for cell in found.cells if math.isfinite(cell.scores[found.metric])]


def _specs(found: Findings) -> dict[str, Any]:
    """The charts, by the names that the template knows them by."""
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
    if any(cell.epochs for cell in found.cells):
        totals = found.winner.matrix.sum(axis=1)
        specs["curves"] = curves.curves(found.cells, float(totals.max() / totals.sum()))
    specs["timeline"] = curves.timeline(found.cells, found.started)
    return specs


def _confusions(found: Findings) -> list[dict[str, Any]]:
    """The confusion matrices, as tables or, of many classes, as the most frequent confusions."""
    told = []
    if found.cells:
        told.append(("The best cell", found.cells[0], found.winner))
    if found.worst:
        told.append(("The worst cell", found.cells[-1], found.worst))
    return [{"title": title, "cell": cell, **_confusion(confusion)} for title, cell, confusion in told]


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
    """Images by class and split, as heads and rows with sums."""
    counts = found.images.counts
    heads = [
        "Class",
        *({"text": name.capitalize(), "number": True} for name in counts),
        {"text": "All", "number": True},
    ]
    by_class = {name: [counts[split][name] for split in counts] for name in found.images.classes}
    names, which = extremes({name: sum(row) for name, row in by_class.items()})
    rows = [[name, *by_class[name], sum(by_class[name])] for name in names]
    sums = [sum(told.values()) if isinstance(told, Mapping) else told for told in counts.values()]
    whole = [["All classes", *sums, sum(sums)]]
    caption = f"Images by class and split. {which}".strip()
    return {"heads": heads, "rows": [*_counted(rows), *_counted(whole)], "caption": caption}


def _counted(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [[row[0], *(f"{number:,}" for number in row[1:])] for row in rows]


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


def _head(key: str) -> str:
    return HEADS.get(key) or key.replace("_", " ").replace(".", " ").capitalize()


@functools.cache
def bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script, which takes 2 s to put together."""
    import vl_convert

    return Markup(vl_convert.javascript_bundle())
