"""Facts about the figures of class activation maps: where the heat lies, what is written, no overlaps."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_figures import LONG, box, open_png, texts

from pipeline.figures import canvas, heatmaps

pytestmark = pytest.mark.filterwarnings("error")

GREY = np.full((40, 40, 3), 128, np.uint8)


def corner(rows: int = 4) -> np.ndarray:
    """A map that is hot in its upper left position alone."""
    heat = np.zeros((rows, rows), np.float32)
    heat[0, 0] = 1
    return heat


def test_enlarged_bilinearly_by_hand():
    """Two positions over four pixels, whose centres lie at 0.25, 0.75, 1.25 and 1.75 of the map's width."""
    heat = heatmaps.enlarge(np.array([[0, 1]], np.float32), 2, 4)
    np.testing.assert_allclose(heat, [[0, 0.25, 0.75, 1]] * 2, atol=1e-6)


def test_overlay_leaves_the_cold_as_it_was_and_reddens_the_hot():
    mixed = heatmaps.overlay(GREY, corner())
    assert mixed.shape == GREY.shape
    assert mixed.dtype == np.uint8
    assert (mixed[25:] == 128).all()
    red, green, blue = mixed[1, 1].astype(int)
    assert red > 100 > green
    assert red > 2 * blue
    assert (heatmaps.overlay(GREY, np.zeros((4, 4))) == GREY).all()


def test_side_by_side_shows_image_map_and_overlay():
    figure = heatmaps.side_by_side(GREY, corner(), "dog.1.jpg: predicted dog 0.98", "CAM of dog")
    written = texts(figure)
    assert {"dog.1.jpg: predicted dog 0.98", "CAM of dog", "image", "overlay", "0", "1"} <= set(written)
    left, middle, right = (axes.images[0].get_array() for axes in figure.axes[:3])
    assert (left == 128).all()
    assert middle.shape == left.shape[:2]
    assert middle[0, 0] == middle.max() == 1
    assert (right[-100:] == 128).all()
    assert (right[0, 0] != 128).any()


@pytest.mark.parametrize("shape", [(40, 40), (600, 400), (20, 60), (1, 1)])
@pytest.mark.parametrize("name", ["dog", *LONG])
def test_side_by_side_is_readable(shape, name):
    figure = heatmaps.side_by_side(
        np.full((*shape, 3), 128, np.uint8), corner(), f"{name}/1.jpg: label {name}", f"Grad-CAM of {name}"
    )
    FigureCanvasAgg(figure).draw()
    titles = [figure._suptitle, *(axes.title for axes in figure.axes[:3])]
    for text in titles:
        extent = box(text)
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1, text
    assert not any(box(one).overlaps(box(other)) for one, other in itertools.combinations(titles, 2))
    sizes = [axes.get_window_extent().width for axes in figure.axes[:3]]
    assert max(sizes) - min(sizes) < 2


def test_sheet_shows_each_image_beside_its_overlay():
    images = np.stack([GREY, GREY // 2, GREY])
    maps = np.stack([corner(), np.zeros((4, 4)), corner()])
    image = open_png(canvas.png(heatmaps.sheet(images, maps, ["one", "two", "three"]), indexed=False))
    pixels = np.asarray(image.convert("RGB"))
    assert (pixels[100, 100] == 128).all()
    assert (pixels[150, 350] == 128).all()  # the cold part of the first overlay
    assert (pixels[12, 208] != 128).any()  # its hot part
    assert (pixels[100, 500] == 64).all()
    assert (pixels[12, 610] == 64).all()  # all of the second overlay is cold
    assert (pixels[330, 100] == 128).all()  # the third, in the next row
    assert (pixels[330, 600] == 255).all()


@pytest.mark.parametrize("shape", [(8, 40, 40), (3, 300, 200), (2, 40, 80), (1, 1, 1)])
def test_sheet_takes_any_size(shape):
    captions = [f"label {name}, predicted {name} 0.97\nGrad-CAM of {name}: {name}/1.jpg" for name in LONG]
    figure = heatmaps.sheet(
        np.full((*shape, 3), 128, np.uint8), np.ones((shape[0], 4, 4)), captions[: shape[0]]
    )
    FigureCanvasAgg(figure).draw()
    written = [box(text) for text in figure.texts]
    assert all(extent.x1 <= figure.bbox.x1 and extent.y0 >= 0 for extent in written)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(written, 2))


def test_sheet_needs_a_map_and_a_caption_per_image():
    for maps, captions in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match="shorter"):
            heatmaps.sheet(np.stack([GREY, GREY]), np.ones((maps, 4, 4)), ["caption"] * captions)


def test_photographs_keep_their_colours():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (192, 192, 3), np.uint8)
    data = canvas.png(heatmaps.sheet(image[None], np.zeros((1, 4, 4)), ["one"]), indexed=False)
    pixels = np.asarray(open_png(data).convert("RGB"))
    np.testing.assert_array_equal(pixels[8:200, 8:200], image)
