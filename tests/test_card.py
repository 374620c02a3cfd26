"""Model cards: what they say of given facts, whatever names the user has, and how long they get."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from pipeline.config.command_line import load
from pipeline.evaluation import intervals, metrics
from pipeline.pages import markdown
from pipeline.reports import card_sections, model_card
from pipeline.reports.card_facts import Facts, Images, LeaderboardEntry, Mistake, Registered, WinnerComparison

LIMIT = 5000
REGISTERED = Registered("pets", "3", "r" * 32, "3.11.7", ["tensorflow==2.21.0", "keras==3.15.1"])
PARAMS = {
    "seed": "42",
    "data.source": "photos",
    "data.image_size": "64",
    "data.test": "0.2",
    "data.cache": "data",
    "model.name": "simple_cnn",
    "model.backbone": "MobileNetV2",
    "model.weights": "imagenet",
    "train.epochs": "12",
    "sweep.metric": "accuracy",
    "register.name": "pets",
}

METHOD = "McNemar, alpha = 0.05, Bonferroni over all pairs"


def report(confusion: list[list[int]], classes: tuple[str, ...]) -> metrics.Report:
    matrix = np.array(confusion)
    labels, predicted = (np.repeat(axis.ravel(), matrix.ravel()) for axis in np.indices(matrix.shape))
    return metrics.report(labels, np.eye(len(classes))[predicted], classes)


def facts(confusion=((15, 5), (2, 18)), classes=("cat", "dog"), **changes) -> Facts:
    sizes = dict.fromkeys(classes, 20)
    given = Facts(
        run_id="a" * 32,
        run_name="LR_0.01",
        trained="2026-01-02 03:04 UTC",
        best_epoch=7,
        epochs=12,
        diverged=False,
        digest="d" * 32,
        params=PARAMS,
        images=Images({"train": sizes, "validation": sizes, "test": sizes}, 3, (5, 2)),
        missing="",
        entry=LeaderboardEntry("s" * 32, "0123", 1, 48, "accuracy", 0.825, ("LR_0.1", 0.8)),
        validation=report(confusion, classes),
        test=None,
        mistakes=[Mistake(f"{n}.jpg", classes[0], classes[-1], 0.9 - n / 100) for n in range(7)],
    )
    return replace(given, **changes)


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose head begins so, as a reader of GitHub's Markdown sees them."""
    lines = text.split("\n")
    first = next(n for n, line in enumerate(lines) if line.startswith(f"| {head}"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
        table.append([re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()) for cell in cells])
    assert {len(row) for row in table} == {len(table[0])}
    return [table[0], *table[2:]]


def test_card_of_a_sweeps_winner_says_it_all():
    text = model_card.render(facts(test=("t" * 32, report([[19, 1], [1, 19]], ("cat", "dog")))), REGISTERED)
    low, high = intervals.wilson(33, 40)
    assert rows(text, " | validation") == [
        ["", "validation, 40 images", "95 % interval", "test, 40 images", "95 % interval"],
        ["accuracy", "0.8250", f"{low:.3f} to {high:.3f}", "0.9500", "0.835 to 0.986"],
        *rows(text, " | validation")[2:],
    ]
    assert [row[0] for row in rows(text, " | validation")[1:]] == [
        "accuracy", "precision", "recall", "F1", "macro precision", "macro recall", "macro F1",
    ]  # fmt: skip
    assert rows(text, "class ")[1:] == [
        ["cat", "0.8824", "0.7500", "0.8108", "20"],
        ["dog", "0.7826", "0.9000", "0.8372", "20"],
    ]
    assert rows(text, "images of")[-1] == ["all classes", "40", "40", "40"]
    assert rows(text, "parameter")[1:] == [
        ["`data.image_size`", "64"], ["`data.source`", "photos"], ["`data.test`", "0.2"],
        ["`model.backbone`", "MobileNetV2"], ["`model.name`", "simple_cnn"], ["`model.weights`", "imagenet"],
        ["`seed`", "42"], ["`train.epochs`", "12"],
    ]  # fmt: skip
    assert rows(text, " | image")[1] == ["1", "0.jpg", "cat", "dog", "0.9000"]
    for words in (
        "# pets, version 3\n",
        "Image classifier: cat, dog. Trained 2026-01-02 03:04 UTC by run LR_0.01 (" + "a" * 32,
        "after epoch 7 of 12",
        "best epoch and the best cell of the sweep were chosen on these very images",
        "measured in run " + "t" * 32,
        "- 5 of 20 images of cat were taken for dog (25%)\n- 2 of 20 images of dog were taken",
        "7 of the 40 validation images are predicted wrong",
        "`card/mistakes.png`",
        "left out, with a reason each in rejected.csv: 3",
        "identical to another: 5 (groups of them: 2, none in training and in another split)",
        f"Rank 1 of 48 cells of sweep {'s' * 32} (study 0123), by validation accuracy: 0.8250",
        "The next one, LR_0.1, has 0.8000",
        "a square of 64 px",
        "not calibrated",
        'load_model("models:/pets/3")',
        "mlflow models serve -m models:/pets/3 ",
        "tensorflow==2.21.0, keras==3.15.1",
        "Apache-2.0",
    ):
        assert words in text, words
    for words in ("diverged", "evaluate.run_id", "no use for photos", "starts from weights", "data.cache"):
        assert words not in text, words


def test_what_was_not_done_is_said_with_its_command():
    text = model_card.render(facts(entry=None), REGISTERED)
    assert "of no sweep" in text and "Rank" not in text
    assert "the best epoch was chosen on these very images" in text
    assert f"mlflow run . -e evaluate -P evaluate.run_id={'a' * 32} -P evaluate.split=test\n" in text
    assert len(rows(text, " | validation")[0]) == 3
    nothing_cut = PARAMS | {"data.test": "0.0"}
    given = model_card.render(facts(params=nothing_cut), REGISTERED)
    assert "no test split" not in given and "evaluate.run_id" in given, "the source has one"
    sizes = {"cat": 20, "dog": 20}
    images = Images({"train": sizes, "validation": sizes, "test": {"cat": 0, "dog": 0}}, 0, (0, 0))
    for changes in ({"images": images}, {"images": None, "missing": "gone"}):
        without = model_card.render(facts(params=nothing_cut, **changes), REGISTERED)
        assert "no test split" in without and "evaluate.run_id" not in without


def test_place_names_the_best_of_a_cell_that_is_not():
    entry = LeaderboardEntry("s", "0123", 5, 48, "f1", 0.7, ("LR_0.1", 0.8))
    assert (
        "Rank 5 of 48 cells of sweep s (study 0123), by validation f1: 0.7000. The best one, LR_0.1, has"
        in (model_card.render(facts(entry=entry), REGISTERED))
    )
    alone = model_card.render(facts(entry=replace(entry, rank=1, cells=1, other=None)), REGISTERED)
    assert "f1: 0.7000.\n" in alone


def test_sample_and_divergence_are_warned_of():
    text = model_card.render(facts(params=PARAMS | {"data.source": "sample"}, diverged=True), REGISTERED)
    assert "**This training diverged**" in text
    assert "no use for photos" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "simple_cnn"}, ""),
        ({"name": "transfer"}, "MobileNetV2 (backbone), imagenet (weights)"),
        (
            {"name": "transfer", "weights": "pets.weights.h5"},
            "MobileNetV2 (backbone), pets.weights.h5 (weights)",
        ),
        ({"name": "transfer", "weights": "none"}, ""),
        ({"name": "transfer", "backbone": "mine.keras"}, "mine.keras (backbone, with its own weights)"),
        (
            {"name": "vgg16_cam"},
            "imagenet (weights)",
        ),  # which has a backbone of its own, whatever the key says
        ({"name": "vgg16_cam", "weights": "none"}, ""),
    ],
)
def test_licence_names_the_weights_that_a_network_starts_from(given, said):
    """With the values that params.yaml takes."""
    params = {f"model.{key}": value for key, value in given.items()}
    load([f"--{key}={value}" for key, value in params.items()], ROOT / "params.yaml")
    licence = model_card.render(facts(params=PARAMS | params), REGISTERED).partition("## Licence")[2]
    found = re.findall(r"weights that others trained: (.*)\. They have a licence of their own", licence)
    assert [name.replace("\\", "") for name in found] == [said] * bool(said)


def compared(similar: Sequence[str], seeds: int = 0, mean: float = 0.0, spread: float | None = None) -> Facts:
    won = WinnerComparison(similar, 47, 1600, METHOD, seeds, 3, mean, spread)
    return facts(entry=LeaderboardEntry("s" * 32, "0123", 1, 48, "accuracy", 0.825, ("LR_0.1", 0.8), won))


def test_card_names_the_cells_that_are_not_significantly_worse_than_the_winner():
    text = model_card.render(compared(["LR_1", "a|b", "LR_3", "LR_4", "LR_5"]), REGISTERED)
    assert (
        "**5 others are not significantly worse** of the 47 compared with it on the same 1,600 validation "
        "images (McNemar, alpha = 0.05, Bonferroni over all pairs): LR_1, a\\|b, LR_3 and 2 more."
    ) in text
    assert "seeds" not in text
    assert "**1 other is not significantly worse** of" in model_card.render(compared(["LR_1"]), REGISTERED)
    text = model_card.render(compared([]), REGISTERED)
    assert (
        "All 47 others are significantly worse on the same 1,600 validation images (McNemar, " in text
        and "not significantly" not in text
    )
    assert "McNemar" not in model_card.render(facts(), REGISTERED)


def test_card_says_how_far_a_finalist_varies_with_its_seed():
    text = model_card.render(compared(["LR_1"], seeds=3, mean=0.81, spread=0.0123), REGISTERED)
    assert "which chose the 3 finalists. Each was retrained with 3 fresh seeds," in text
    assert "the mean of this one is 0.8100 ± 0.0123 (mean and standard deviation from seed to seed)" in text
    alone = model_card.render(compared(["LR_1"], seeds=1, mean=0.81), REGISTERED)
    assert "the mean of this one is 0.8100 (mean)" in alone


def test_no_mistake_means_no_sheet():
    known = facts(((20, 0), (0, 20)), mistakes=[])
    assert not card_sections.has_sheet(known)
    for text in (model_card.render(known, REGISTERED), model_card.description(known, REGISTERED, LIMIT)):
        assert "no mistake on the 40 validation images" in text
        assert "Nothing on the validation split" in text
        assert "mistakes.png" not in text


def test_images_that_are_gone_are_said_to_be():
    known = facts(images=None, missing="the images have changed since the training")
    assert not card_sections.has_sheet(known)
    text = model_card.render(known, REGISTERED)
    assert text.count("the images have changed since the training") == 2
    assert "mistakes.png" not in text and "0.jpg" in text


NASTY = ("a|b", "`code`", "two\nlines", "**bold** _it_ <b>", "back\\slash|", "\udcff", "[x](http://y)")


def test_no_name_breaks_a_table():
    mistakes = [Mistake(f"{name}/|\n`.jpg", name, NASTY[0], 0.9) for name in NASTY]
    known = facts((np.eye(7, dtype=int) * 9 + 1).tolist(), NASTY, mistakes=mistakes)
    known = replace(known, params=PARAMS | {"data.source": "C:\\a|b`c"}, run_name="| `x`\n# y")
    text = model_card.render(known, REGISTERED)
    text.encode()  # what cannot be stored is written otherwise
    shown = ["a|b", "`code`", r"two\nlines", "**bold** _it_ <b>", "back\\slash|", r"\udcff", "[x](http://y)"]
    assert [row[0] for row in rows(text, "class ")[1:]] == shown
    assert [row[0] for row in rows(text, "images of")[1:]] == [*shown, "all classes"]
    assert [row[2] for row in rows(text, " | image")[1:]] == shown
    assert [row[1] for row in rows(text, " | image")[1:]] == [f"{name}/|\\n`.jpg" for name in shown]
    assert ["`data.source`", "C:\\a|b`c"] in rows(text, "parameter")
    assert [line for line in text.split("\n") if line.startswith("#")] == [
        "# pets, version 3", "## Scores", "## Most frequent confusions", "## Known failures",
        "## Use and limits", "## Data", "## Place in the leaderboard", "## Parameters", "## How to load it",
        "## Licence",
    ]  # fmt: skip


def test_underscores_within_words_stay_readable():
    assert markdown.escape("he_uniform _x_ a__b") == r"he_uniform \_x\_ a\_\_b"


def test_long_names_keep_both_ends():
    assert markdown.escape("a" * 50 + "z" * 50, 11) == "aaaaa…zzzzz"
    assert markdown.escape("a" * 11, 11) == "a" * 11


def test_a_hundred_classes_are_the_worst_twenty():
    classes = tuple(f"class_{n:03}" for n in range(100))
    confusion = np.eye(100, dtype=int) * 10
    confusion[97, :3] = (9, 8, 7)
    sizes = {name: 100 - n for n, name in enumerate(classes)}
    images = Images({"train": sizes, "validation": sizes, "test": sizes}, 0, (0, 0))
    known = facts(confusion.tolist(), classes, images=images)
    text = model_card.render(known, REGISTERED)
    each, sized = rows(text, "class "), rows(text, "images of")
    assert len(each) == 21
    assert [row[0] for row in each[1:5]] == ["class_097", "class_000", "class_001", "class_002"]
    assert "20 classes of 100 with the lowest F1" in text
    assert [row[0] for row in sized[1:]] == [f"class_{n:03}" for n in range(99, 79, -1)] + ["all classes"]
    assert sized[-1][1:] == ["5,050"] * 3
    assert "class_007 and 92 more" in text
    assert "- 9 of 34 images of class_097 were taken for class_000 (26%)" in text
    assert len(text) < 9000
    short = model_card.description(known, REGISTERED, LIMIT)
    assert len(short.encode()) <= LIMIT


def test_description_leaves_out_what_is_too_long_and_says_so():
    known = facts()
    whole = model_card.render(known, REGISTERED)
    where = f"The whole card is in `card/model_card.md` of run {'r' * 32}"
    assert where in model_card.description(known, REGISTERED, 100_000) and where not in whole
    assert "Left out here" not in model_card.description(known, REGISTERED, 100_000)
    seen = set()
    for most in range(5000, 1000, -50):
        text = model_card.description(known, REGISTERED, most)
        assert len(text.encode()) <= most
        assert text.startswith("# pets, version 3\n") and where in text
        (left_out,) = re.findall(r"Left out here: (.*)\.", text) or [""]
        seen.add(left_out)
        assert ("| class |" in text) == ("scores of each class" not in left_out)
        assert ("| parameter |" in text) == ("parameters" not in left_out)
        assert ("# Scores" in text) == (not left_out.endswith(("scores", "how to load it")))
    assert len(seen) > 4
    with pytest.raises(ValueError, match="100 are too few"):
        model_card.description(known, REGISTERED, 100)


def test_description_keeps_its_limit_whatever_the_names_are():
    for character in ("\U0001f431", "|", "\udcff", "\U000f0000", "猫", "_", "'", "\n"):
        long = character * 255
        classes = tuple(f"{long}{n}" for n in range(30))
        mistakes = [Mistake(long * 10, long, long, 0.5)] * 8
        known = facts(np.ones((30, 30), int).tolist(), classes, mistakes=mistakes, run_name=long)
        known = replace(
            known, params=PARAMS | {"data.source": long * 9}, entry=compared([long] * 9, 3, 0.8, 0.1).entry
        )
        registered = replace(REGISTERED, name=long.replace("\udcff", "x"))  # no registry takes such a name
        text = model_card.description(known, registered, LIMIT)
        assert len(text.encode()) <= LIMIT
        assert "card/model_card.md" in text
