"""A sweep's page from values that are made up: what it says, and how a browser shows it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from pipeline import pages
from pipeline.pages import charts, parameter_values, sweep, timing
from pipeline.pages.summary import asides, verdict
from pipeline.pages.sweep_data import (
    Cell,
    Confusion,
    Epoch,
    Exhibit,
    Exhibits,
    Failed,
    Findings,
    Images,
    Importance,
)
from pipeline.pages.thumbnails import jpeg

pytestmark = pytest.mark.slow

NASTY = "</script><b>\udcff|ü"
SERVER = "http://127.0.0.1:5000"
METHOD = "McNemar, alpha = 0.05, Bonferroni over all pairs"
FAULTS = Path(__file__).with_name("faults.js")


def cell(number: int, values: dict[str, Any], score: float, epochs: int = 3, **changes) -> Cell:
    """A cell that began `number` times ten seconds after the sweep and took eight."""
    begin = 1_000_000 + 10_000 * number
    learned = [
        Epoch(n, begin + 2000 * n, 0.4 + 0.1 * n / epochs, 0.5 + (score - 0.5) * n / epochs)
        for n in range(1, epochs + 1)
    ]
    name = "-".join(map(str, values.values()))
    scores = dict.fromkeys(("accuracy", "precision", "recall", "f1"), score)
    told = Cell(f"{number:032x}", name, values, scores, epochs, False, False, f"host {number % 2}", begin,
                begin + 8000, learned)  # fmt: skip
    return replace(told, **changes)


def grid(count: int) -> list[Cell]:
    """So many cells of up to 200, best first; a high learning rate diverges."""
    found = []
    for number in range(count):
        settings = {
            "learning_rate": [0.001, 0.01, 0.1, 1.0][number % 4],
            "activation": ["relu", "tanh", "swish", "leaky_relu", "gelu"][number // 4 % 5],
            "kernel_initializer": ["he_uniform", "glorot_uniform"][number // 20 % 2],
            "batch_size": [8, 16, 32, 64, 128][number // 40],
        }
        diverged = settings["learning_rate"] == 1.0
        found.append(cell(number, settings, 0.5 if diverged else 0.9 - number / 1000, diverged=diverged))
    return sorted(found, key=lambda one: -one.scores["accuracy"])


def findings(cells: list[Cell], classes: tuple[str, ...] = ("cat", "dog"), **changes) -> Findings:
    """Findings of a sweep whose winner has 80 of 100 validation images right."""
    n = len(classes)
    matrix = np.full((n, n), 20 // (n - 1)) + np.eye(n, dtype=int) * (80 - 20 // (n - 1))
    image = jpeg(np.full((20, 40, 3), 90, np.uint8))
    exhibit = Exhibit(image, f"{NASTY}.jpg", classes[0], classes[1], 0.99)
    wide = Confusion(classes, matrix)
    found = Findings(
        run_id="f" * 32, experiment_id="7", study="abc", server=SERVER, served=False,
        started=995_000, ended=2_000_000, made="2026-01-01 00:00 UTC", metric="accuracy", total=len(cells),
        keys=list(cells[0].values) if cells else [], cells=cells, failed=[],
        winner=wide if cells else None, worst=wide if len(cells) > 1 else None,
        test=(cells[0].scores, wide) if cells else None, has_test=True, verdict=None,
        importance=Importance(dict.fromkeys(cells[0].values, 0.2), 0.2, "Shares.") if len(cells) > 1 else "",
        exhibits=Exhibits([exhibit] * 3, [exhibit] * 8, 20, 100, "", "Grad-CAM", "3.11.7", ("keras==3",)),
        images=Images("/data/x", "a folder", 32, {"train": dict.fromkeys(classes, 1000)}, classes,
                          {name: [image] for name in classes}, [(NASTY, "empty file")] * 60, ""),
        environment=[("Python", "3.11.7")], settings={"data.source": NASTY},
    )  # fmt: skip
    return replace(found, **changes)


def ranked_by(metric: str) -> Findings:
    """Findings of a sweep that another metric than accuracy ranks."""
    cells = [replace(one, scores=one.scores | {metric: one.scores["f1"]}) for one in grid(6)]
    return findings(cells, metric=metric)


def ranked_by_loss() -> Findings:
    """Findings of a sweep that the loss ranks; the worst cell's is no number."""
    losses = [0.2, 0.4, 0.6, 0.8, 1.2, math.nan]
    cells = [
        replace(one, scores=one.scores | {"loss": loss}) for one, loss in zip(grid(6), losses, strict=True)
    ]
    return findings(cells, metric="loss")


def with_finalists() -> Findings:
    """Findings of a sweep that was stopped when one of its two finalists had been trained once more."""
    best, second, *_ = cells = grid(6)
    told = {"winner": {"run_id": best.run_id}, "not_significantly_worse": [], "images": 100, "method": METHOD}
    known = {"mean": 0.8, "spread": None, "scores": [0.8], "seeds": [43], "interval": [0.7, 0.9]}
    unknown = {"mean": None, "spread": None, "scores": [], "seeds": [], "interval": None}
    finalists = [
        {"run_id": one.run_id, "name": one.name, "first_score": 0.9} | repeats
        for one, repeats in ((best, known), (second, unknown))
    ]
    return findings(cells, verdict=told | {"finalists": finalists, "ranked_by_mean": False})


NONE = findings([], failed=[Failed("0" * 32, "x", "it broke")], total=3, importance="No cell.")
SWEEPS = {
    "one": findings([cell(0, {"learning_rate": 0.01}, 0.8, epochs=1)]),
    "200": findings(grid(200)),
    "diverged": findings([replace(one, diverged=True) for one in grid(6)]),
    "half": findings(grid(20), total=48, test=None, exhibits=Exhibits.none("Not shown."),
                     failed=[Failed("0" * 32, NASTY, "it broke")]),
    "five classes": findings(grid(6), ("brick red", "grün", "navy", NASTY, "a" * 60)),
    "many classes": findings(grid(6), tuple(f"class {number}" for number in range(21))),
    "range": findings([
        cell(n, {"learning_rate": 10 ** (-4 + n / 10), "dropout": n / 40}, 0.5 + n / 100) for n in range(30)
    ][::-1]),
    "macro F1": ranked_by("macro_f1"),
    "own metric": ranked_by("mcc"),
    "loss": ranked_by_loss(),
    "finalists": with_finalists(),
    "none": NONE,
}  # fmt: skip


# What it says


def test_verdict_names_the_winner_with_its_interval():
    told = findings(grid(3))
    # Wilson's interval of 160 in 200: 0.7391 to 0.8495 (statsmodels' proportion_confint)
    assert verdict(told) == (
        "0.001-relu-he_uniform-8 is best: validation accuracy 0.900 (95 % interval 0.739 to 0.850), "
        "test 0.900; 2 others are within that interval."
    )
    lone = replace(told, cells=[told.cells[0], replace(told.cells[1], scores={"accuracy": 0.5})], test=None)
    assert verdict(lone).endswith("not measured on the test split; no other is within that interval.")


def test_verdict_by_another_metric_has_an_interval_where_there_is_one():
    # recall of both classes 0.8: the macro average of F1 is 0.8, and its interval not that of accuracy
    assert "validation macro F1 0.900 (95 % interval 0.7" in verdict(ranked_by("macro_f1"))
    assert verdict(ranked_by("mcc")).endswith("validation mcc 0.900, test 0.900.")


def test_finalist_without_repeats_has_dashes():
    text = sweep.page(SWEEPS["finalists"]).decode()
    table = text[text.index("Finalists, retrained") : text.index('<section id="leaderboard">')]
    first, second = table.split("<tr>")[2:]
    assert first.count("–") == 1 and "0.8000" in first, "one seed has no standard deviation"
    assert second.count("–") == 4
    assert "once all are trained with the same seeds" in table


def test_sweep_stopped_amid_its_finalists_is_not_the_whole():
    (said, *_) = asides(replace(SWEEPS["finalists"], repeats=(1, 4)))
    assert said.startswith("Unfinished sweep: 1 of 4 repeats of the finalists are finished.")
    finished = asides(replace(SWEEPS["finalists"], repeats=(4, 4)))
    assert not any("Unfinished sweep" in text for text in finished)


def test_minimised_metric_is_best_where_it_is_lowest():
    told = SWEEPS["loss"]
    (low, *_), high = (
        parameter_values.effects("learning_rate", told.cells[:5], "loss"),
        told.cells[4].scores["loss"],
    )
    assert low.best < high
    maximised, minimised = (
        str(charts.parallel(["learning_rate"], told.cells[:5], metric)).index(charts.WORST_TO_BEST[0])
        - str(charts.parallel(["learning_rate"], told.cells[:5], metric)).index(charts.WORST_TO_BEST[-1])
        for metric in ("accuracy", "loss")
    )
    assert maximised < 0 < minimised
    text = sweep.page(told).decode()
    assert "NaN" not in text[: text.index("<script>")], "which is no JSON"


def test_verdict_takes_the_comparison_where_there_is_one():
    told = findings(grid(3))
    compared = {"winner": {"run_id": told.cells[0].run_id}, "not_significantly_worse": [{}], "finalists": []}
    compared["method"] = METHOD
    assert verdict(replace(told, verdict=compared)).endswith(
        f"; 1 other is not significantly worse ({METHOD})."
    )
    compared["not_significantly_worse"] = []
    assert verdict(replace(told, verdict=compared)).endswith(
        f"; all others are significantly worse ({METHOD})."
    )
    compared["winner"] = {"run_id": "of a grid that was smaller then"}
    assert "within that interval" in verdict(replace(told, verdict=compared))


def test_verdict_of_sweeps_that_came_to_little():
    assert verdict(NONE) == "No cell is finished yet: 0 of 3; 1 failed."
    assert verdict(SWEEPS["diverged"]).startswith(
        "All 6 finished cells diverged: the best validation accuracy is"
    )
    assert "is the only finished cell: validation accuracy 0.800" in verdict(SWEEPS["one"])
    assert asides(SWEEPS["half"]) == [
        "Unfinished sweep: 20 of 48 cells are finished. Rerun the same command to resume.",
        "1 cell failed; the reasons are below the leaderboard.",
        "5 of 20 cells diverged.",
    ]
    assert asides(SWEEPS["200"]) == ["50 of 200 cells diverged."]


def test_effects_are_means_and_deviations_by_value():
    cells = [
        cell(n, {"rate": rate}, score)
        for n, (rate, score) in enumerate([(0.1, 0.5), (0.01, 0.6), (0.1, 0.7)])
    ]
    low, high = parameter_values.effects("rate", cells, "accuracy")
    assert (low.text, low.cells, low.mean, low.deviation) == ("0.01", 1, 0.6, None)
    assert (high.text, high.cells, high.best) == ("0.1", 2, 0.7)
    assert high.mean == pytest.approx(0.6)
    assert high.deviation == pytest.approx(0.2 / math.sqrt(2))


def test_values_are_written_as_they_are_typed():
    texts = [
        parameter_values.text_of(value)
        for value in (0.0, 0.01, 1e-5, 10000.0, 16, True, None, "relu", "true")
    ]
    assert texts == ["0.0", "0.01", "1e-05", "10000", "16", "true", "null", "relu", "true"]
    assert parameter_values.in_order([0.1, 0.001, 0.01]) == ["0.001", "0.01", "0.1"]
    assert parameter_values.places([1e-4, *np.logspace(-3.9, -1.1, 12).tolist(), 1e-1])["0.1"] == 1


def test_time_goes_to_workers_and_their_idleness():
    told = findings([cell(n, {"learning_rate": 0.1}, 0.6) for n in range(4)])
    assert [row[2] for row in timing.phases(told)] == ["5 s", "38 s", "16 min 2 s"]
    assert timing.phases(told)[1][1] == "4 trained, 0.8 at once on average"
    (first, second) = timing.workers(told)
    # two cells each: 8 s, of which 2 to the first epoch's end, 4 in two more, 2 recording; 38 - 16 idle
    assert [cell["value"] for cell in first[2:]] == [16000, 4000, 8000, 4000, 22000]
    assert first[0] == "host 0" and second[0] == "host 1"


def test_time_stands_still_while_a_sweep_is_stopped():
    hour = 3_600_000
    first, second = (cell(n, {"learning_rate": 0.1}, 0.6) for n in range(2))  # they take 8 s each
    begun, *later = second.epochs
    gone_on = replace(
        second,
        epochs=[begun, *(replace(one, ended=one.ended + hour) for one in later)],
        ended=second.ended + hour,
    )
    told = findings([first, gone_on], ended=second.ended + hour + 1000)
    shown, paused = timing.without_pauses(told)
    assert paused == hour + 2000  # from the epoch before the stop to the one after it
    assert shown.cells[0] == first
    assert shown.cells[1].ended - shown.cells[1].started == 8000 - 2000
    assert shown.ended - shown.started == told.ended - told.started - paused
    assert timing.without_pauses(findings([first, second], ended=second.ended + 1000))[1] == 0
    assert timing.without_pauses(NONE) == (NONE, 0)


def test_importance_has_a_bar_for_interactions_where_they_are_known():
    def bars(interactions: float | None) -> list[str]:
        spec = charts.importance(Importance({"learning_rate": 0.6, "bias": 0.1}, interactions, "x"))
        return [row["parameter"] for row in spec["data"]["values"]]

    assert bars(0.3) == ["learning rate", "bias", "interactions"]
    assert bars(None) == ["learning rate", "bias"]


def test_text_of_any_kind_is_shown_as_it_is():
    page = sweep.page(SWEEPS["five classes"])
    assert page.count(b"</script>") == page.count(b"<script")
    assert b"<b>" not in page
    assert r"&lt;/script&gt;&lt;b&gt;\udcff|ü" in page.decode()
    assert pages.shown("a\udcff\x00\u202e\n") == "a\\udcff\\x00\\u202e\n"


def test_page_of_a_thousand_classes_is_small_and_shows_the_ends():
    classes = tuple(f"class {number}" for number in range(1000))
    told = findings(grid(6), classes)
    matrix = np.eye(1000, dtype=int) * 40
    matrix[7, 900], matrix[3, 4] = 9, 5
    wide = Confusion(classes, matrix)
    counts = {"train": {name: 10 + number for number, name in enumerate(classes)}}
    few = {name: told.images.examples[name] for name in classes[:30]}
    told = replace(
        told, winner=wide, worst=wide, test=None,
        images=replace(told.images, counts=counts, examples=few),
    )  # fmt: skip
    text = sweep.page(told).decode()
    small = sweep.page(findings(grid(6)))
    assert len(text) - len(small) < 150_000
    table = text[text.index('id="data"') : text.index('id="time"')]
    assert "The 20 largest and the 20 smallest classes; 960 more lie between them." in table
    for shown, there in (
        ("class 999", 1),
        ("class 980", 1),
        ("class 979", 0),
        ("class 29", 0),
        ("class 19", 1),
    ):
        assert table.count(f"<td>{shown}</td>") == there, shown
    assert "<td>All classes</td>" in table and f"{sum(counts['train'].values()):,}" in table
    confused = text[text.index('id="confusion"') : text.index('id="images"')]
    assert confused.index("class 900") < confused.index("class 4<")


# How it is shown


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A tab without a network, which keeps what went wrong in `page.wrong`."""
    page = browser.new_page()
    page.wrong = []
    page.on("console", lambda message: page.wrong.append(message.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on(
        "request", lambda request: page.wrong.append(request.url) if request.url.startswith("http") else None
    )
    yield page
    page.close()


def show(page: Page, found: Findings, folder: Path) -> None:
    """Open the page of findings, at the width and in the scheme that the tab has."""
    file = folder / "report.html"
    file.write_bytes(sweep.page(found))
    page.wrong.clear()
    page.goto(file.as_uri())
    drawn(page)


def drawn(page: Page) -> None:
    """Wait until every chart is drawn at the width of its box."""
    boxes = "[...document.querySelectorAll('[data-chart]')]"
    page.wait_for_function(f"() => {boxes}.every(box => box.dataset.drawn == box.clientWidth)")


def assert_sound(page: Page) -> None:
    assert page.wrong == []
    assert page.evaluate(FAULTS.read_text()) == []


def test_page_of_48_cells_is_sound_at_every_width_light_and_dark(page, tmp_path):
    page.set_viewport_size({"width": 1400, "height": 900})
    show(page, findings(grid(48)), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1400, 820, 390):
            page.set_viewport_size({"width": width, "height": 900})
            drawn(page)
            assert_sound(page)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
    page.emulate_media(color_scheme="light")


@pytest.mark.parametrize("name", SWEEPS)
def test_page_of_any_sweep_is_sound_on_a_phone(page, tmp_path, name):
    page.set_viewport_size({"width": 390, "height": 800})
    show(page, SWEEPS[name], tmp_path)
    assert_sound(page)


def test_every_heading_sorts_and_the_filter_filters(page, tmp_path):
    page.set_viewport_size({"width": 1400, "height": 900})
    found = findings(grid(48))
    show(page, found, tmp_path)

    def column(number: int) -> list[str]:
        return page.eval_on_selector_all(
            f"#cells tbody tr:not([hidden]) td:nth-child({number})", "cells => cells.map(c => c.textContent)"
        )

    heads = page.locator("#cells th")
    assert heads.all_inner_texts() == [
        "Rank", "Learning rate", "Activation", "Kernel initializer", "Batch size",
        "Accuracy", "Precision", "Recall", "F1", "Note", "Run",
    ]  # fmt: skip
    for number in range(1, heads.count() + 1):
        head = heads.nth(number - 1)
        for direction in ("ascending", "descending"):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == direction
            told = column(number)
            key = float if number in (1, 2, 5, 6, 7, 8, 9) else str
            assert told == sorted(told, key=key, reverse=direction == "descending")
        assert page.locator("#cells th[aria-sort]").count() == 1
    page.fill("#cells-filter", "tanh 0.01")
    expected = [
        one
        for one in found.cells
        if one.values["activation"] == "tanh" and one.values["learning_rate"] == 0.01
    ]
    assert len(column(1)) == len(expected) > 0
    assert page.inner_text(".filter output") == f"{len(expected)} of 48 rows"
    page.fill("#cells-filter", "")
    assert len(column(1)) == 48
    links = page.eval_on_selector_all("#cells td a", "links => links.map(a => a.href)")
    assert sorted(links) == sorted(f"{SERVER}/#/experiments/7/runs/{one.run_id}" for one in found.cells)
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.wrong == []


def test_page_in_mlflows_frame_says_that_links_do_not_open(page, tmp_path):
    """MLflow shows an artifact from a blob in a frame that may run scripts and nothing else."""
    page.set_viewport_size({"width": 1400, "height": 900})
    frame = tmp_path / "frame.html"
    frame.write_text('<iframe sandbox="allow-scripts" width="1200" height="800" src="report.html"></iframe>')
    (tmp_path / "report.html").write_bytes(sweep.page(findings(grid(3))))
    page.wrong.clear()
    page.goto(frame.as_uri())
    inner = page.frame_locator("iframe")
    inner.locator(".framed").wait_for()
    assert inner.locator("#cells td a").count() == 0
    inner.locator("nav a").nth(1).click()
    assert page.wrong == []


def test_print_leaves_out_what_paper_cannot_do(page, tmp_path):
    page.set_viewport_size({"width": 1400, "height": 900})
    show(page, findings(grid(3)), tmp_path)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    page.emulate_media(media="screen")
