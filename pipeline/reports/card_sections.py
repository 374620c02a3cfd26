"""Sections of a model card: scores, failures, data, leaderboard, parameters; values in, Markdown out."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.evaluation import intervals
from pipeline.evaluation.metrics import Report
from pipeline.evaluation.objective import Objective
from pipeline.pages import markdown
from pipeline.pages.markdown import escape
from pipeline.reports.card_facts import FOLDER, SHEET, Facts, LeaderboardEntry, WinnerComparison
from pipeline.runtime.console import counted, few
from pipeline.sources import split_names

_MOST_PAIRS = 3  # of classes that are mixed up
_MOST_CLASSES = 20  # that tables have a row for; of more, those that matter most
_MOST_SIMILAR = 3  # cells named that are not significantly worse than the winner
_PARAMETERS = ("seed", "data", "model", "train")  # sections of params.yaml that a training depends on


def has_sheet(facts: Facts) -> bool:
    """Whether mistakes and their images are present."""
    return bool(facts.mistakes) and facts.images is not None


def scores(facts: Facts) -> str:
    """Averages with intervals of the validation split and, if evaluated, of the test split."""
    measured = {split_names.VALIDATION: facts.validation} | (
        {split_names.TEST: facts.test[1]} if facts.test else {}
    )
    ranges = {split: intervals.of(report.confusion) for split, report in measured.items()}
    heads = [""]
    for split, report in measured.items():
        heads += [f"{split}, {report.confusion.sum():,} images", "95 % interval"]
    rows = []
    for key in ("accuracy", *intervals.AVERAGES):
        row = [key.replace("f1", "F1").replace("_", " ")]
        for split, report in measured.items():
            low, high = ranges[split][key]
            row += [f"{getattr(report, key):.4f}", f"{low:.3f} to {high:.3f}"]
        rows.append(row)
    chosen = "epoch and the best cell of the sweep were" if facts.entry else "epoch was"
    parts = [
        "## Scores",
        markdown.table(heads, rows),
        f"The validation scores are optimistic: the best {chosen} chosen on these very images.",
        _tested(facts),
        "Precision, recall and F1 are averages over the classes, weighted by their images (recall is then "
        "the same number as accuracy); macro averages have each class count alike, however few images it "
        "has. Intervals: Wilson's score interval for accuracy, for the others "
        f"bootstrap within each class ({intervals.RESAMPLES:,} resamples of its images, seed "
        f"{intervals.SEED}; without a single mistake it has no width). They estimate the scores on other "
        "images of the same kind, not those of another training.",
    ]
    return "\n\n".join(parts)


def _tested(facts: Facts) -> str:
    if facts.test:
        return f"No epoch or cell was chosen on the test images; measured in run {facts.test[0]}."
    if facts.images:  # a source may give a test split where data.test is 0
        has_test = any(facts.images.counts[split_names.TEST].values())
    else:
        has_test = facts.params["data.test"] not in ("0", "0.0")
    if not has_test:
        return "There is no test split: `data.test` was 0."
    return (
        "It was not measured on the test split. To do so, and to have this card renewed:\n\n```bash\n"
        f"mlflow run . -e evaluate -P evaluate.run_id={facts.run_id} -P evaluate.split=test\n"
        f"mlflow run . -e register -P register.run_id={facts.run_id}\n```"
    )


def scores_of_each_class(report: Report) -> str:
    """Precision, recall and F1 per class; of many classes, those with the lowest F1."""
    shown = sorted(report.per_class.items(), key=lambda item: item[1]["f1-score"])
    if len(shown) <= _MOST_CLASSES:
        head, shown = "Each class on the validation split:", list(report.per_class.items())
    else:
        head = (
            f"The {_MOST_CLASSES} classes of {len(shown)} with the lowest F1 on the validation split (all "
            "are in `report/classification_report.txt` of its run):"
        )
    rows = [
        [
            _name(name),
            *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1-score")),
            f"{row['support']:,.0f}",
        ]
        for name, row in shown[:_MOST_CLASSES]
    ]
    return f"{head}\n\n{markdown.table(['class', 'precision', 'recall', 'F1', 'images'], rows)}"


def most_frequent_confusions(report: Report) -> str:
    """The pairs of label and prediction with the most errors."""
    errors = np.where(np.eye(len(report.classes), dtype=bool), 0, report.confusion)
    totals = report.confusion.sum(axis=1)
    most = np.argsort(-errors, axis=None, kind="stable")[:_MOST_PAIRS]
    lines = [
        f"- {errors[row, column]:,} of {totals[row]:,} images of {_name(report.classes[row])} were taken "
        f"for {_name(report.classes[column])} ({errors[row, column] / totals[row]:.0%})"
        for row, column in zip(*np.unravel_index(most, errors.shape), strict=True)
        if errors[row, column]
    ]
    return "\n".join(["## Most frequent confusions", "", *(lines or ["Nothing on the validation split."])])


def failure_modes(facts: Facts) -> str:
    """The most confident errors on the validation split."""
    report = facts.validation
    n = int(report.confusion.sum())
    wrong = n - int(np.trace(report.confusion))
    if not wrong:
        return f"## Known failures\n\nNone: it makes no mistake on the {n:,} validation images."
    rows = [
        [
            str(number),
            escape(mistake.name, 120),
            _name(mistake.label),
            _name(mistake.predicted),
            f"{mistake.probability:.4f}",
        ]
        for number, mistake in enumerate(facts.mistakes, start=1)
    ]
    parts = [
        "## Known failures",
        f"{wrong:,} of the {n:,} validation images are predicted wrong; the most confident errors:",
        markdown.table(["", "image", "label", "predicted", "probability"], rows),
        f"`{FOLDER}/{SHEET}` shows them, numbered as here."
        if has_sheet(facts)
        else f"They cannot be shown: {escape(facts.missing, 300)}.",
    ]
    return "\n\n".join(parts)


def data(facts: Facts) -> str:
    """Source, digest, classes and sizes of the splits."""
    params, report = facts.params, facts.validation
    lines = [
        "## Data",
        "",
        f"- source: {escape(params['data.source'], 300)}",
        f"- digest: `{facts.digest}`",
        f"- {len(report.classes):,} classes: {few_names(report.classes)}",
        f"- images are squeezed to {params['data.image_size']} x {params['data.image_size']} px",
    ]
    if facts.images is None:
        lines += [f"- further facts are missing: {escape(facts.missing, 300)}"]
        return "\n".join(lines)
    images, groups = facts.images.identical
    lines += [
        f"- left out, with a reason each in rejected.csv: {facts.images.rejected:,}",
        f"- images that are identical to another: {images:,}"
        + f" (groups of them: {groups:,}, none in training and in another split)" * bool(groups),
    ]
    return "\n".join([*lines, "", _sizes(facts.images.counts)])


def _sizes(counts: Mapping[str, Mapping[str, int]]) -> str:
    heads = (split_names.TRAIN, split_names.VALIDATION, split_names.TEST)
    by_class = {name: [counts[split][name] for split in heads] for name in counts[split_names.TRAIN]}
    shown, head = list(by_class), "images of"
    if len(shown) > _MOST_CLASSES:
        shown = sorted(shown, key=lambda name: sum(by_class[name]))[:_MOST_CLASSES]
        head = f"images of (the {_MOST_CLASSES} smallest of {len(by_class)} classes)"
    rows = [[_name(name), *(f"{count:,}" for count in by_class[name])] for name in shown]
    total = ["all classes", *(f"{sum(counts[split].values()):,}" for split in heads)]
    return markdown.table([head, *heads], [*rows, total])


def leaderboard(facts: Facts) -> str:
    """The cell's rank in its sweep, and the comparison with the other cells."""
    entry = facts.entry
    if entry is None:
        return "## Place in the leaderboard\n\nNone: it is a cell of no sweep."
    text = (
        f"Rank {entry.rank:,} of {entry.cells:,} cells of sweep {entry.sweep_run_id} (study {entry.study}), "
        f"by validation {_ranked_by(entry)}: {entry.value:.4f}."
    )
    if entry.other:
        name, value = entry.other
        which = "The next one" if entry.rank == 1 else "The best one"
        text += f" {which}, {escape(name, 120)}, has {value:.4f}."
    if not entry.sweep_ended:
        text += " **The sweep was unfinished when this was written**: it is the place among the cells so far."
    if entry.failed:
        text += f" {counted(entry.failed, 'cell')} failed."
    parts = [
        "## Place in the leaderboard",
        text,
        *(_comparison(entry.comparison) if entry.comparison else []),
    ]
    return "\n\n".join(parts)


def _ranked_by(entry: LeaderboardEntry) -> str:
    lower = " (lower is better)" if Objective(entry.metric).direction == "minimize" else ""
    means = ", the finalists by their means over fresh seeds" if entry.by_mean else ""
    return f"{entry.metric}{lower}{means}"


def _comparison(comparison: WinnerComparison) -> list[str]:
    """The evidence for the first place."""
    parts = []
    if comparison.seeds:
        spread = "" if comparison.spread is None else f" ± {comparison.spread:.4f}"
        what = "mean" if comparison.spread is None else "mean and standard deviation from seed to seed"
        parts.append(
            f"The scores above are of the first seed, which chose the {comparison.finalists:,} finalists. "
            f"Each was retrained with {comparison.seeds} fresh seeds, and their means rank them; "
            f"the mean of this one is {comparison.mean:.4f}{spread} ({what})."
        )
    by = f"on the same {comparison.images:,} validation images ({comparison.method})"
    if comparison.not_significantly_worse:
        names = few([escape(name, 120) for name in comparison.not_significantly_worse], _MOST_SIMILAR)
        count = len(comparison.not_significantly_worse)
        others = "1 other is" if count == 1 else f"{count:,} others are"
        parts.append(
            f"**{others} not significantly worse** of the {comparison.compared:,} compared with it {by}: "
            f"{names}."
        )
    elif comparison.compared:
        parts.append(f"All {comparison.compared:,} others are significantly worse {by}.")
    return parts


def parameters(params: Mapping[str, str]) -> str:
    """The parameters that the training depends on, sorted by key."""
    rows = [
        [f"`{key}`", escape(value, 300)]
        for key, value in sorted(params.items())
        # where images are cached has no part in what comes out
        if key.split(".")[0] in _PARAMETERS and key != "data.cache"
    ]
    return f"## Parameters\n\n{markdown.table(['parameter', 'value'], rows)}"


def few_names(names: Sequence[str]) -> str:
    """The first of the class names, escaped for Markdown."""
    return few([_name(name) for name in names])


def _name(name: str) -> str:
    return escape(name, 60)
