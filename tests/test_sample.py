import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.sources import sample

PICTURES = 100  # of each class; 200 images take about 1.5 s


def digest(label: str, number: int) -> str:
    return hashlib.sha256(sample.draw(label, number).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """For each class, uint8 (PICTURES, SIDE, SIDE, 3)."""
    return {
        label: np.stack([np.asarray(sample.draw(label, number)) for number in range(PICTURES)])
        for label in sample.CLASSES
    }


def largest_t(cats: np.ndarray, dogs: np.ndarray) -> float:
    """The largest of Welch's t statistics over the columns of two arrays (n, columns)."""
    variance = cats.var(axis=0, ddof=1) / len(cats) + dogs.var(axis=0, ddof=1) / len(dogs)
    return float(np.abs((cats.mean(axis=0) - dogs.mean(axis=0)) / np.sqrt(variance)).max())


def border_colours(images: np.ndarray) -> np.ndarray:
    """The mean colour of the outermost 4 px: (n, SIDE, SIDE, 3) -> (n, 3)."""
    border = np.ones((sample.SIDE, sample.SIDE), dtype=bool)
    border[4:-4, 4:-4] = False
    return images[:, border].mean(axis=1)


def test_draws_rgb_squares():
    image = sample.draw("cat", 0)
    assert (image.mode, image.size) == ("RGB", (sample.SIDE, sample.SIDE))


def test_unknown_label_is_refused():
    with pytest.raises(ValueError, match=r"'fox'.*cat, dog"):
        sample.draw("fox", 0)


def test_another_process_draws_the_same_pixels():
    code = (
        "import hashlib; from pipeline.sources.sample import draw\n"
        "for label in ('cat', 'dog'): print(hashlib.sha256(draw(label, 7).tobytes()).hexdigest())"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [digest("cat", 7), digest("dog", 7)]


def test_threads_draw_the_same_pixels():
    alone = [digest("dog", number) for number in range(16)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, ["dog"] * 16, range(16))) == alone


def test_global_random_state_is_neither_moved_nor_read():
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    first = digest("cat", 3)
    assert np.random.random() == expected
    assert digest("cat", 3) == first


def test_all_images_differ(images):
    everything = np.concatenate(list(images.values()))
    assert len({image.tobytes() for image in everything}) == 2 * PICTURES


def test_classes_differ_at_the_middle_but_not_at_the_border(images):
    # |t| > 3.3 has a probability of 0.1 % a column where the two means are equal.
    cats, dogs = images["cat"], images["dog"]
    assert largest_t(border_colours(cats), border_colours(dogs)) < 3.3
    third = slice(sample.SIDE // 3, 2 * sample.SIDE // 3)
    middle = [arrays[:, third, third].reshape(PICTURES, -1).astype(float) for arrays in (cats, dogs)]
    assert largest_t(*middle) > 6


def test_scenery_light_and_noise_tell_nothing(monkeypatch):
    monkeypatch.setattr(sample, "animal", lambda *_: None)

    def facts(label: str) -> np.ndarray:
        """Float (PICTURES, 9): mean colours of the upper and the lower half, and noise by channel."""
        images = np.stack([np.asarray(sample.draw(label, n), dtype=float) for n in range(PICTURES)])
        upper, lower = np.split(images, 2, axis=1)
        noise = np.diff(images, axis=2).std(axis=(1, 2))
        return np.concatenate([upper.mean(axis=(1, 2)), lower.mean(axis=(1, 2)), noise], axis=1)

    assert largest_t(facts("cat"), facts("dog")) < 3.3
