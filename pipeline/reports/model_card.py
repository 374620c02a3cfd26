"""The model card: what a registered model is, how good it is and where it fails; values in, Markdown out.

The sections follow M. Mitchell et al., Model cards for model reporting (2019), as far as runs record them.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence

from pipeline.config.networks import BACKBONE_FILES, NETWORKS
from pipeline.pages.markdown import escape
from pipeline.reports import card_sections
from pipeline.reports.card_facts import CARD, FOLDER, SHEET, Facts, Registered

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
        "scores": card_sections.scores(facts),
        "scores of each class": card_sections.scores_of_each_class(facts.validation),
        "most frequent confusions": card_sections.most_frequent_confusions(facts.validation),
        "known failures": card_sections.failure_modes(facts),
        "use and limits": _use_and_limits(facts),
        "data": card_sections.data(facts),
        "leaderboard": card_sections.leaderboard(facts),
        "parameters": card_sections.parameters(facts.params),
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
        f"Image classifier: {card_sections.few_names(facts.validation.classes)}. "
        f"Trained {facts.trained} by run {escape(facts.run_name, 80)} ({facts.run_id}), "
        f"as it was after epoch {facts.best_epoch} of {facts.epochs}, its best." + warning * facts.diverged
    )


def _where(facts: Facts, registered: Registered, left_out: Sequence[str]) -> str:
    sheet = (
        f", the images of the most confident errors in `{FOLDER}/{SHEET}`"
        if card_sections.has_sheet(facts)
        else ""
    )
    missing = f" Left out here: {', '.join(left_out)}." if left_out else ""
    return f"The whole card is in `{FOLDER}/{CARD}` of run {registered.run_id}{sheet}.{missing}"


def _use_and_limits(facts: Facts) -> str:
    size, classes = facts.params["data.image_size"], card_sections.few_names(facts.validation.classes)
    lines = [
        "## Use and limits",
        "",
        f"- It is for images that show one of exactly these classes: {classes}. It "
        "classifies an image as a whole.",
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
    """The weights that a network starts from, and of which backbone; empty if it starts from none."""
    name, weights = params["model.name"], params["model.weights"]
    keys = NETWORKS[name].parameters
    if "weights" not in keys or weights == "none":
        return []
    backbone = params["model.backbone"] if "backbone" in keys else ""
    if backbone.endswith(BACKBONE_FILES) and weights == "imagenet":
        return [f"{escape(backbone, 80)} (backbone, with its own weights)"]
    named = {"backbone": backbone, "weights": weights}
    return [f"{escape(value, 80)} ({key})" for key, value in named.items() if value]
