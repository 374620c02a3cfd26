"""Facts about figures: what is written and drawn where, that nothing overlaps, and what they weigh."""

import concurrent.futures
import io
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from pipeline.figures import canvas, confusion_matrix, contact_sheet, curves

pytestmark = pytest.mark.filterwarnings("error")  # a missing glyph or a failed layout is a warning

LONG = [
    "Chesapeake Bay retriever, adult, photographed from behind",
    "Chesapeake Bay retriever, puppy, photographed from the front",
    "Cardigan_Welsh_corgi_with_no_spaces_in_it",
    "кошка",
    "قطة",
    "$5 and $x_{^",
    "_private",
    "accuracy",
    "a" * 200,
    "",
    "it's 100 %",
    "one\\two",
]


def texts(figure: Figure) -> list[str]:
    """All that is written, once drawn."""
    FigureCanvasAgg(figure).draw()
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def box(text: Text) -> Bbox:
    return text.get_window_extent()


def open_png(data: bytes) -> Image.Image:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return Image.open(io.BytesIO(data))


def matrix(num_classes: int) -> np.ndarray:
    """Every cell filled, as much on the diagonal as beside it."""
    return np.full((num_classes, num_classes), 37) + np.eye(num_classes, dtype=int) * 37 * (num_classes - 1)


def history(epochs: int) -> dict[str, list[float]]:
    steps = np.arange(epochs)
    return {
        "loss": list(0.7 * np.exp(-steps / 15)),
        "val_loss": list(0.7 * np.exp(-steps / 10) + 0.004 * steps),
        "accuracy": list(1 - 0.5 * np.exp(-steps / 12)),
        "val_accuracy": list(0.85 - 0.35 * np.exp(-steps / 8)),
        "learning_rate": [0.01 * 0.1 ** max(0, (epoch - 10) // 5 + 1) for epoch in range(epochs)],
    }


# Confusion matrices


def test_confusion_matrix_says_counts_and_row_shares():
    written = texts(confusion_matrix.draw(np.array([[30, 10], [0, 5]]), ("cat", "dog"), "cell 7"))
    assert {"30\n75%", "10\n25%", "0", "5\n100%", "cat", "dog", "true", "predicted", "cell 7"} <= set(written)


def test_confusion_matrix_with_an_empty_row():
    written = texts(confusion_matrix.draw(np.array([[5, 5], [0, 0]]), ("cat", "dog")))
    assert sorted(written) == sorted(["5\n50%"] * 2 + ["0"] * 2 + ["cat", "dog"] * 2 + ["true", "predicted"])


def test_confusion_matrix_has_the_first_true_class_on_top():
    axes = confusion_matrix.draw(np.array([[1, 2], [3, 4]]), ("cat", "dog")).axes[0]
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["2\n67%"] == (1, 0)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < right
    assert bottom > top


@pytest.mark.parametrize("names", [LONG, [f"class {i}" for i in range(20)], ["cat", "dog"], LONG[:2]])
def test_confusion_matrix_is_readable(names):
    figure = confusion_matrix.draw(
        matrix(len(names)), names, "LR_0.01-KI_glorot_uniform-AC_LeakyReLU-BI_0.01"
    )
    FigureCanvasAgg(figure).draw()
    axes, page = figure.axes[0], figure.bbox
    sides = [axes.get_xticklabels(), axes.get_yticklabels()]
    for text in [*sides[0], *sides[1], axes.xaxis.label, axes.yaxis.label, *figure.texts]:
        extent = box(text)
        assert page.x0 <= extent.x0 and extent.x1 <= page.x1, text
        assert page.y0 <= extent.y0 and extent.y1 <= page.y1, text
    for side in sides:
        for one, other in itertools.pairwise(label for label in side if label.get_text()):
            assert not box(one).overlaps(box(other)), (one, other)
    cell = axes.bbox.width / len(names)
    assert len(axes.texts) == len(names) ** 2
    for text in axes.texts:
        assert box(text).width < cell
        assert box(text).height < cell
        assert text.get_fontsize() >= 6


def test_cells_contrast_with_their_text():
    axes = confusion_matrix.draw(np.array([[9, 1], [4, 6]]), ("cat", "dog")).axes[0]
    colours = {text.get_text(): text.get_color() for text in axes.texts}
    assert colours == {"9\n90%": "white", "1\n10%": "black", "4\n40%": "black", "6\n60%": "white"}


def test_confusion_matrix_of_fifty_classes_is_whole_and_has_no_numbers():
    figure = confusion_matrix.draw(matrix(50), [f"class {i}" for i in range(50)], "cell 7")
    assert len(figure.axes[0].texts) == 0
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "class 49"
    assert max(figure.get_size_inches()) < 12
    assert figure.get_suptitle() == "cell 7"


@pytest.mark.parametrize("num_classes", [1000, 5000])
def test_confusion_matrix_of_very_many_classes_has_the_most_confused(num_classes):
    counts = np.eye(num_classes, dtype=int) * 50
    counts[7, 900] = 30  # of 80
    counts[3 : 3 + 24 * 2 : 2, 800] = 10
    figure = confusion_matrix.draw(counts, [f"class {i}" for i in range(num_classes)], "cell 7")
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    # 26 classes of the confusions, then the first others
    expected = sorted({7, 900, 800, *range(3, 51, 2), *range(0, 47, 2)})[:50]
    assert {"class 7", "class 900", "class 800", "class 3", "class 49"} <= set(names)
    assert len(names) == len(expected) == 50
    shares = axes.collections[0].get_array().reshape(50, 50)
    assert shares[names.index("class 7"), names.index("class 900")] == pytest.approx(30 / 90)
    assert f"the 50 most confused of {num_classes:,} classes" in figure.get_suptitle()
    width, height = open_png(canvas.png(figure)).size
    assert max(width, height) < 1000


# Learning curves


def test_learning_curves_hold_the_history():
    past = history(60)
    figure = curves.learning_curves(past, 33, "cell 7")
    loss, accuracy, rate, _ = figure.axes
    for axes, keys in ((loss, ("loss", "val_loss")), (accuracy, ("accuracy", "val_accuracy"))):
        for line, key in zip(axes.lines, keys, strict=False):
            assert line.get_xdata().tolist() == list(range(1, 61))
            assert line.get_ydata().tolist() == pytest.approx(past[key])
    assert rate.lines[0].get_ydata().tolist() == pytest.approx(past["learning_rate"])
    assert loss.get_position().x1 < accuracy.get_position().x0
    assert accuracy.get_ylim() == (-0.02, 1.02)
    assert {"loss", "accuracy", "training", "validation", "epoch", "cell 7"} <= set(texts(figure))


def test_best_epoch_is_marked_in_both():
    figure = curves.learning_curves(history(20), 13)
    for axes in figure.axes[:2]:
        assert [list(line.get_xdata()) for line in axes.lines[2:]] == [[13, 13]]
    assert f"best epoch 13: accuracy {history(20)['val_accuracy'][12]:.3f}" in texts(figure)
    assert not any("best" in text for text in texts(curves.learning_curves(history(20))))


@pytest.mark.parametrize(
    ("epochs", "shown"), [(5, ["0.01"]), (12, ["0.001", "0.01"]), (60, ["1e-12", "0.01"])]
)
def test_learning_rates_are_named(epochs, shown):
    rate = curves.learning_curves(history(epochs)).axes[2]
    assert [label.get_text() for label in rate.get_yticklabels()] == shown


def test_one_epoch_shows_points_at_epoch_one():
    figure = curves.learning_curves(history(1), 1)
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
        assert axes.lines[0].get_marker() == "o"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["loss", "val_loss"])
def test_diverged_is_said_from_its_first_epoch(value, key):
    past = history(12)
    past[key][4:] = [value] * 8
    figure = curves.learning_curves(past, 4)
    assert "loss: diverged, not finite from epoch 5 on" in texts(figure)
    for axes in figure.axes[:2]:
        assert axes.patches[0].get_x() == 4.5
        assert axes.get_xlim() == (0.5, 12.5)


def test_diverged_from_the_first_epoch():
    past = {**history(1), "loss": [np.nan], "val_loss": [np.nan]}
    figure = curves.learning_curves(past, 1)
    assert "loss: diverged, not finite from epoch 1 on" in texts(figure)
    assert len(canvas.png(figure)) > 1000


def test_explosion_leaves_the_rest_to_be_seen():
    past = {**history(3), "loss": [0.7, 3e5, 2e12]}
    assert curves.learning_curves(past).axes[0].get_yscale() == "log"
    assert curves.learning_curves(history(3)).axes[0].get_yscale() == "linear"


# ROC curves


def test_roc_curve_of_two_classes_by_hand():
    second = np.array([0.1, 0.4, 0.35, 0.8])
    figure = curves.roc_curve(np.array([0, 0, 1, 1]), np.stack([1 - second, second], axis=1), ("cat", "dog"))
    chance, curve = figure.axes[0].lines
    assert np.column_stack(curve.get_data()).tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert np.column_stack(chance.get_data()).tolist() == [[0, 0], [1, 1]]
    assert "0.750  dog" in texts(figure)


def test_roc_curves_of_many_classes_look_different():
    names = [f"class {i}" for i in range(20)]
    rng = np.random.default_rng(0)
    figure = curves.roc_curve(np.arange(400) % 20, rng.random((400, 20)), names)
    drawn = figure.axes[0].lines[1:]
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 20
    FigureCanvasAgg(figure).draw()
    extent = figure.legends[0].get_window_extent()
    assert figure.bbox.x1 >= extent.x1 and extent.x0 >= figure.axes[0].bbox.x1
    assert figure.bbox.y1 >= extent.y1 and extent.y0 >= 0


def test_roc_curves_of_very_many_classes_are_the_lowest_and_the_average():
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % 1000
    probabilities = rng.random((3000, 1000))
    probabilities[np.arange(3000), labels] += np.where(labels < 990, 5, -5)  # all right but for the last ten
    figure = curves.roc_curve(labels, probabilities, [f"class {i}" for i in range(1000)])
    written = texts(figure)
    assert len(figure.axes[0].lines) == 1 + 1 + 6
    assert "0.990  macro average of 1,000" in written
    lowest = [text for text in written if text.startswith("0.000  class ")]
    assert len(lowest) == 6
    assert all(int(text.split()[-1]) >= 990 for text in lowest)
    grid, height = figure.axes[0].lines[1].get_data()
    assert height[(grid > 0) & (grid < 0.99)] == pytest.approx(0.99)
    assert max(open_png(canvas.png(figure)).size) < 1000


def test_roc_curve_leaves_out_a_class_without_images():
    rng = np.random.default_rng(0)
    written = texts(curves.roc_curve(np.array([0, 1, 0, 1]), rng.random((4, 3)), ("cat", "dog", "bird")))
    assert not any("bird" in text for text in written)
    assert any(text.endswith("  cat") for text in written)


def test_roc_curve_that_is_not_defined_says_why():
    one_class = curves.roc_curve(np.zeros(3, int), np.full((3, 2), 0.5), ("cat", "dog"))
    assert "no curve: the images are all of one class" in texts(one_class)
    not_finite = curves.roc_curve(np.array([0, 1]), np.full((2, 2), np.nan), ("cat", "dog"))
    assert "no curve: some probabilities are not finite" in texts(not_finite)


# Contact sheets


def test_contact_sheet_shows_every_image_with_its_caption():
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (3, 16, 16, 3)).copy()
    figure = contact_sheet.draw(images, ["cat 0.9", "dog 0.8", "cat 0.7"], columns=2)
    assert texts(figure) == ["cat 0.9", "dog 0.8", "cat 0.7"]
    image = open_png(canvas.png(figure)).convert("RGB")
    assert image.getpixel((60, 60)) == pytest.approx((200, 30, 30), abs=4)
    assert image.getpixel((200, 60)) == pytest.approx((30, 200, 30), abs=4)
    assert image.getpixel((60, 220)) == pytest.approx((30, 30, 200), abs=4)
    assert image.getpixel((200, 220)) == (255, 255, 255)


def test_lines_of_a_caption_stay_apart_and_the_tallest_makes_room_for_all():
    images = np.full((3, 64, 64, 3), 128, np.uint8)
    long = f"label {'x' * 35}"
    captions = ["label cat\npredicted dog\n0.95", f"{long}\npredicted {'y' * 35}\n0.95", "WWWW" * 40]
    figure = contact_sheet.draw(images, captions, columns=1, max_lines=3)
    short, tall, wide = texts(figure)
    assert short == captions[0]
    assert tall.replace("\n", "") == captions[1].replace("\n", "") and tall.endswith("\n0.95")
    assert wide.count("\n") == 2 and wide.endswith("…")
    assert all(box(text).y0 >= 0 for text in figure.texts)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(map(box, figure.texts), 2))


def test_wide_letters_do_not_reach_the_next_caption():
    images = np.full((2, 64, 64, 3), 128, np.uint8)
    both = [open_png(canvas.png(contact_sheet.draw(images, ["W" * 44, then]))) for then in ("", "i")]
    right = [np.asarray(image.convert("L").crop((140, 136, image.width, image.height))) for image in both]
    assert (right[0] == 255).all() and not (right[1] == 255).all()


def test_contact_sheet_without_images():
    assert texts(contact_sheet.draw(np.zeros((0, 8, 8, 3), np.uint8), [])) == ["no images"]


def test_contact_sheet_needs_a_caption_per_image():
    with pytest.raises(ValueError, match="shorter"):
        contact_sheet.draw(np.zeros((2, 8, 8, 3), np.uint8), ["one"])


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 64, 64), (3, 300, 200), (2, 40, 80), (2, 1, 1)])
def test_contact_sheet_takes_any_size(shape):
    figure = contact_sheet.draw(np.full((*shape, 3), 128, np.uint8), LONG[: shape[0]])
    image = open_png(canvas.png(figure))
    assert image.width <= 8 * 165
    captions = [box(text) for text in figure.texts]
    assert all(extent.x1 <= image.width and extent.y0 >= 0 for extent in captions)
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(captions))


# All of them


def test_bytes_are_few():
    rng = np.random.default_rng(0)
    names, labels = [f"class {i}" for i in range(12)], np.arange(3000) % 12
    noise = np.stack(  # harder to compress than photographs
        [
            np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC))
            for pixels in rng.integers(0, 256, (24, 16, 16, 3), np.uint8)
        ]
    )
    sizes = {
        "2 classes": len(canvas.png(confusion_matrix.draw(matrix(2), names[:2]))),
        "12 classes": len(canvas.png(confusion_matrix.draw(matrix(12), names))),
        "curves": len(canvas.png(curves.learning_curves(history(60), 33, "cell 7"))),
        "roc": len(canvas.png(curves.roc_curve(labels, rng.random((3000, 12)), names))),
        "sheet": len(canvas.png(contact_sheet.draw(noise, ["dog as cat 0.95"] * 24))),
    }
    assert sizes.pop("sheet") < 80_000
    assert max(sizes.values()) < 60_000, sizes


def test_png_has_the_figures_size_and_white_paper():
    figure = curves.learning_curves(history(4), 2)
    image = open_png(canvas.png(figure))
    assert image.size == (900, 420)
    assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_characters_that_no_font_has_are_escaped():
    names = ["\U000f0000", "\U000f0001", "\udcff"]
    assert {r"\U000f0000", r"\U000f0001", r"\udcff"} <= set(texts(confusion_matrix.draw(matrix(3), names)))


def test_characters_of_another_installed_font_are_drawn_with_it():
    assert "STIXGeneral" in {entry.name for entry in fontManager.ttflist}  # comes with matplotlib
    figure = confusion_matrix.draw(matrix(2), ["Ⓘ", "cat"])  # not in DejaVu Sans
    FigureCanvasAgg(figure).draw()
    label = figure.axes[0].get_xticklabels()[0]
    assert label.get_text() == "Ⓘ"
    assert len(label.get_fontfamily()) == 2


def test_threads_draw_at_once_what_one_draws_alone():
    def draw(seed: int) -> bytes:
        past = history(5 + seed)
        return canvas.png(curves.learning_curves(past, 2, f"cell {seed}"))

    alone = [draw(seed) for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(4))) == alone


def test_import_brings_no_global_state():
    code = (
        "import sys; from pipeline.figures import confusion_matrix, contact_sheet, curves, heatmaps; "
        "sys.exit(bool({'matplotlib.pyplot', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
