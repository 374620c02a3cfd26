"""Importance of parameters: by hand on full grids, and what is said where a grid is not full."""

import itertools
import math
import random

import pytest

from pipeline.reports.importance import importance

NAN = float("nan")


def grid(**lists) -> list[dict]:
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def test_two_by_two_by_hand():
    # mean 3, total (1 + 4 + 1 + 4) / 4 = 2.5 of 2, 1, 4, 5; means by a 1.5 and 4.5: 2.25; by b 3 and 3: 0
    found = importance(grid(a=[1, 2], b=["x", "y"]), [2, 1, 4, 5])
    assert found.shares == pytest.approx({"a": 0.9, "b": 0.0})
    assert list(found.shares) == ["a", "b"]
    assert found.interactions == pytest.approx(0.1)


def test_two_by_three_by_hand():
    # of 0 2 4 / 2 4 12: mean 4, total (16 + 4 + 0 + 4 + 0 + 64) / 6 = 44/3; rows 2, 6: 4; columns 1, 3, 8:
    # (9 + 1 + 16) / 3 = 26/3
    found = importance(grid(a=[True, False], b=[None, 3, "x"]), [0, 2, 4, 2, 4, 12])
    assert found.shares == pytest.approx({"b": 26 / 44, "a": 12 / 44})
    assert list(found.shares) == ["b", "a"]
    assert found.interactions == pytest.approx(6 / 44)
    assert "every combination was trained" in found.caption


def test_order_of_the_cells_and_direction_do_not_matter():
    cells = grid(a=[1, 2], b=["x", "y", "z"])
    scores = [0, 2, 4, 2, 4, 12]
    expected = importance(cells, scores)
    places = random.Random(0).sample(range(6), 6)
    again = importance([cells[n] for n in places], [-scores[n] for n in places], "minimize")
    assert again.shares == pytest.approx(expected.shares)
    assert again.interactions == pytest.approx(expected.interactions)


def test_effects_of_combinations_alone_are_interactions():
    cells = grid(learning_rate=[0.1, 0.01, 0.001, 0.0001], activation=["relu", "tanh", "swish", "gelu"],
                 bias=[0.0, 0.01, 0.02])  # fmt: skip
    noise = random.Random(0)
    scores = [
        0.5 + 0.3 * ((cell["learning_rate"] >= 0.01) ^ (cell["activation"] in ("relu", "tanh")))
        + noise.gauss(0, 0.01)
        for cell in cells
    ]  # fmt: skip
    found = importance(cells, scores)
    assert max(found.shares.values()) < 0.01
    assert found.interactions > 0.98


def test_all_that_depends_on_seeds_is_theirs():
    # means over the seeds 1 and 5, variance 4; total ((0 - 3)² + (2 - 3)² + (6 - 3)² + (4 - 3)²) / 4 = 5
    found = importance(grid(seed=[1, 2], a=[1, 2], b=[1])[:4], [0, 6, 2, 4])
    assert found.shares == pytest.approx({"a": 0.8, "seed": 0.2})
    assert found.interactions == 0
    assert "seed's" in found.caption


def test_cells_without_a_finite_score_are_left_out_and_said():
    cells = grid(a=[1, 2, 3], b=[1, 2, 3, 4])
    scores = [NAN, math.inf, *(cell["a"] + 0.01 * cell["b"] for cell in cells[2:])]
    found = importance(cells, scores)
    assert found.interactions is None
    assert "2 of the cells left out: no finite score." in found.caption
    assert found.shares["a"] > found.shares["b"]
    # a whole row is left out: what remains is a full grid
    rest = importance(cells, [NAN] * 4 + [cell["a"] for cell in cells[4:]])
    assert (rest.shares, rest.interactions) == ({"a": 1.0, "b": 0.0}, 0.0)
    assert "4 of the cells left out" in rest.caption


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_part_of_a_grid_is_estimated_and_its_limits_are_said(direction):
    sign = 1 if direction == "maximize" else -1
    cells = grid(rate=[0.1, 0.01, 0.001], bias=[0.0, 0.1, 0.2, 0.3], flag=[True, False])[:-1]
    # where lower is better, the best are those of the highest rate, too
    scores = [sign * (cell["rate"] == 0.1) + 0.001 * n for n, cell in enumerate(cells)]
    found = importance(cells, scores, direction)
    assert next(iter(found.shares)) == "rate"
    assert found.shares["rate"] > 0.6
    assert math.fsum(found.shares.values()) == pytest.approx(1)
    assert found.interactions is None
    assert "not every combination was trained" in found.caption
    assert "interactions are not separated" in found.caption


def test_combination_that_is_there_twice_is_no_full_grid():
    cells = grid(a=[1, 2, 3], b=[1, 2, 3, 4])
    found = importance([*cells[:-1], cells[0]], [cell["a"] + n / 100 for n, cell in enumerate(cells)])
    assert found.interactions is None


@pytest.mark.parametrize(
    ("cells", "scores", "words"),
    [
        ([], [], "fewer than two"),
        ([{"a": n, "b": 1} for n in range(9)], range(9), "fewer than two"),
        ([{"a": n, "b": n} for n in range(4)], range(4), "at least 10 finished cells; there are 4"),
        ([{"a": n, "b": n} for n in range(12)], [0.5] * 12, "the same score"),
        ([{"a": n, "b": n} for n in range(12)], [0.9] + [0.5] * 11, "Too many cells have the same score"),
        ([{"a": n, "b": n} for n in range(3)], [NAN] * 3, "fewer than two"),
    ],
)
def test_importance_says_why_there_is_none(cells, scores, words):
    assert words in importance(cells, scores)
