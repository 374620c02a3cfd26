"""The model card: what a registered model is, how good it is and where it fails; values in, Markdown out.

The sections follow M. Mitchell et al., Model cards for model reporting (2019), as far as runs can tell them.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipeline.config.networks import BACKBONE_FILES, NETWORKS
from pipeline.evaluation import intervals
from pipeline.evaluation.metrics import Report
from pipeline.evaluation.objective import Objective
from pipeline.pages import markdown
from pipeline.pages.markdown import escape
from pipeline.reports.card_facts import Facts, LeaderboardEntry, Registered, WinnerComparison
from pipeline.runtime.console import counted, few
from pipeline.sources import split_names

FOLDER, CARD, SHEET = "card", "model_card.md", "mistakes.png"  # among a run's artifacts
_MOST_PAIRS = 3  # of classes that are mixed up
_MOST_CLASSES = 20  # that tables have a row for; of more, those that matter most
_MOST_SIMILAR = 3  # cells named that are not significantly worse than the winner
_PARAMETERS = ("seed", "data", "model", "train")  # sections of params.yaml that a training depends on
# Of a description that is too long, in this order; what is never left out has a bounded length.
_LEFT_OUT_FIRST = (
    "scores of each class",
    "parameters",
    "licence",
    "known failures",
    "most frequent confusions",
    "data",
    "leaderboard",
    "use and limits",
    "scores",
    "how to load it",
)


def render(facts: Facts, registered: Registered) -> str:
    """The card in full length; of many classes, tables have those that matter most."""
    return _joined(_sections(facts, registered).values())


def description(facts: Facts, registered: Registered, most: int) -> str:
    """The card as a version's description: it says where the images are, which are not shown there.

    Args:
        facts: Of the training.
        registered: The version.
        most: Bytes of UTF-8 that it may take. Sections are left out until it does, and it says which.
    """
    sections = _sections(facts, registered)
    left_out: list[str] = []
    for name in ("", *_LEFT_OUT_FIRST):
        left_out += [name] if name else []
        title, *others = (text for name, text in sections.items() if name not in left_out)
        text = _joined([title, _where(facts, registered, left_out), *others])
        if len(text.encode()) <= most:
            return text
    raise ValueError(f"a card takes at least {len(text.encode())} bytes, {most} are too few")


def _sections(facts: Facts, registered: Registered) -> dict[str, str]:
    """The sections' texts by what a reader would call them, in order."""
    return {
        "title": _title(facts, registered),
        "scores": _scores(facts),
        "scores of each class": _scores_of_each_class(facts.validation),
        "most frequent confusions": _mixed_up(facts.validation),
        "known failures": _known_failures(facts),
        "use and limits": _use_and_limits(facts),
        "data": _data(facts),
        "leaderboard": _leaderboard(facts),
        "parameters": _parameters(facts.params),
        "how to load it": _loading(registered),
        "licence": _licence(facts.params),
    }


def _joined(sections: Iterable[str]) -> str:
    return "\n\n".join(sections) + "\n"


def _title(facts: Facts, registered: Registered) -> str:
    warning = (
        "\n\n**This training diverged**: its loss left the finite numbers, or it answers the same for every "
        "image. It is good for nothing but to be compared with."
    )
    return (
        f"# {escape(registered.name, 256)}, version {registered.version}\n\n"
        f"Image classifier: {_few(facts.validation.classes)}. Trained {facts.trained} by run "
        f"{escape(facts.run_name, 80)} ({facts.run_id}), as it was after epoch {facts.best_epoch} of "
        f"{facts.epochs}, its best." + warning * facts.diverged
    )


def _where(facts: Facts, registered: Registered, left_out: Sequence[str]) -> str:
    sheet = f", the images of the most confident errors in `{FOLDER}/{SHEET}`" if has_sheet(facts) else ""
    missing = f" Left out here: {', '.join(left_out)}." if left_out else ""
    return f"The whole card is in `{FOLDER}/{CARD}` of run {registered.run_id}{sheet}.{missing}"


def has_sheet(facts: Facts) -> bool:
    """Whether there are mistakes, and images of them."""
    return bool(facts.mistakes) and facts.images is not None


def _scores(facts: Facts) -> str:
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
        f"{intervals.SEED}; without a single mistake it has no width). They tell what other images of the "
        "same kind may give, not what another training may.",
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


def _scores_of_each_class(report: Report) -> str:
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


def _mixed_up(report: Report) -> str:
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


def _known_failures(facts: Facts) -> str:
    report = facts.validation
    n = int(report.confusion.sum())
    wrong = n - int(np.trace(report.confusion))
    if not wrong:
        return f"## Known failures\n\nNone is known: it makes no mistake on the {n:,} validation images."
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


def _use_and_limits(facts: Facts) -> str:
    size = facts.params["data.image_size"]
    lines = [
        "## Use and limits",
        "",
        f"- It is for images that show one of exactly these classes: {_few(facts.validation.classes)}. It "
        "judges an image as a whole.",
        "- It answers one of them for every image, also for one that shows none of them.",
        f"- It sees each image squeezed to a square of {size} px: proportions and small details are lost.",
        "- How good it is on other kinds of images than those it was trained on is unknown.",
        "- Its probabilities are not calibrated: answers given with 0.9 need not be right nine times in ten.",
    ]
    if facts.params["data.source"] == "sample":
        lines.append(
            "- It was trained on the sample that this project draws, which is no photos: it is of no use for "
            "photos."
        )
    return "\n".join(lines)


def _data(facts: Facts) -> str:
    params, report = facts.params, facts.validation
    lines = [
        "## Data",
        "",
        f"- source: {escape(params['data.source'], 300)}",
        f"- digest: `{facts.digest}`",
        f"- {len(report.classes):,} classes: {_few(report.classes)}",
        f"- images are squeezed to {params['data.image_size']} x {params['data.image_size']} px",
    ]
    if facts.images is None:
        lines += [f"- no more can be told: {escape(facts.missing, 300)}"]
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


def _leaderboard(facts: Facts) -> str:
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


def _parameters(params: Mapping[str, str]) -> str:
    rows = [
        [f"`{key}`", escape(value, 300)]
        for key, value in sorted(params.items())
        # where images are cached has no part in what comes out
        if key.split(".")[0] in _PARAMETERS and key != "data.cache"
    ]
    return f"## Parameters\n\n{markdown.table(['parameter', 'value'], rows)}"


def _loading(registered: Registered) -> str:
    uri = f"models:/{registered.name}/{registered.version}"
    needs = ", ".join(registered.requirements)
    return (
        "## How to load it\n\n```python\nimport mlflow, pandas\n\n"
        f"model = mlflow.pyfunc.load_model({json.dumps(uri, ensure_ascii=False)})\n"
        'model.predict(pandas.DataFrame({"image": [open("image.jpg", "rb").read()]}))\n```\n\n'
        f"```bash\nmlflow models serve -m {shlex.quote(uri)} --env-manager uv -p 5001\n```\n\n"
        f"It was made with Python {registered.python} and needs {needs}."
    )


def _licence(params: Mapping[str, str]) -> str:
    text = (
        "## Licence\n\nThe code of this project is under Apache-2.0. The images that it was trained on "
        "have a licence of their own: to know it, and to keep to it, is the user's matter."
    )
    if of := _pretrained(params):
        text += (
            f" The network starts from weights that others trained: {', '.join(of)}. They have a licence of "
            "their own."
        )
    return text


def _pretrained(params: Mapping[str, str]) -> list[str]:
    """The weights that a network starts from, and of which backbone; nothing where it starts from none."""
    name, weights = params["model.name"], params["model.weights"]
    keys = NETWORKS[name].parameters
    if "weights" not in keys or weights == "none":
        return []
    backbone = params["model.backbone"] if "backbone" in keys else ""
    if backbone.endswith(BACKBONE_FILES) and weights == "imagenet":
        return [f"{escape(backbone, 80)} (backbone, with its own weights)"]
    named = {"backbone": backbone, "weights": weights}
    return [f"{escape(value, 80)} ({key})" for key, value in named.items() if value]


def _few(names: Sequence[str]) -> str:
    return few([_name(name) for name in names])


def _name(name: str) -> str:
    return escape(name, 60)
