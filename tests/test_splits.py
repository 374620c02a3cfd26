"""Sizes by hand, and what may and may not change which split an image is in."""

import random

import numpy as np
import pytest

from pipeline.dataset.splits import LEFT_OUT, assign, check_sizes, complete, draw
from pipeline.runtime.errors import UserError
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION


def digests(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{number:032x}" for number in range(count)]


def sizes(splits: np.ndarray, labels: np.ndarray, label: int) -> tuple[int, int, int]:
    mine = splits[labels == label]
    return tuple(int((mine == split).sum()) for split in (TRAIN, VALIDATION, TEST))


@pytest.mark.parametrize(
    ("count", "validation", "test", "expected"),
    [
        (100, 0.2, 0.2, (60, 20, 20)),
        (18_750, 0.2, 0.2, (11_250, 3_750, 3_750)),
        (100, 0.25, 0.0, (75, 25, 0)),
        (7, 0.2, 0.2, (5, 1, 1)),  # 1.4 and 1.4
        (8, 0.2, 0.2, (4, 2, 2)),  # 1.6 and 1.6
        (3, 0.2, 0.2, (1, 1, 1)),  # 0.6 and 0.6
        (3, 0.01, 0.01, (1, 1, 1)),  # 0.03 of an image is one
        (2, 0.2, 0.0, (1, 1, 0)),  # 0.4 of an image is one
        (10, 0.6, 0.39, (1, 5, 4)),  # 6 and 4 would leave none to train on
    ],
)
def test_sizes_without_duplicates(count, validation, test, expected):
    labels = np.repeat([0, 1], count)
    splits = assign(digests(2 * count), labels, ["cat", "dog"], validation, test, seed=1)
    assert sizes(splits, labels, 0) == sizes(splits, labels, 1) == expected


def test_each_class_is_split_by_itself():
    labels = np.repeat([0, 1, 2], [10, 100, 1000])
    splits = assign(digests(1110), labels, ["a", "b", "c"], 0.2, 0.1, seed=1)
    assert sizes(splits, labels, 0) == (7, 2, 1)
    assert sizes(splits, labels, 1) == (70, 20, 10)
    assert sizes(splits, labels, 2) == (700, 200, 100)


def test_the_same_in_any_order():
    names, labels = digests(300), np.repeat([0, 1], 150)
    splits = assign(names, labels, ["cat", "dog"], 0.2, 0.2, seed=7)
    order = np.random.default_rng(1).permutation(300)
    shuffled = assign([names[i] for i in order], labels[order], ["cat", "dog"], 0.2, 0.2, seed=7)
    assert (shuffled == splits[order]).all()


def test_the_seed_draws():
    labels = np.repeat([0, 1], 100)
    one, again, other = (assign(digests(200), labels, ["cat", "dog"], 0.2, 0.2, seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert 20 < (one != other).sum() < 180


def test_one_more_image_moves_few():
    labels = np.zeros(1001, int)
    before = assign(digests(1000), labels[:1000], ["cat"], 0.2, 0.2, seed=1)
    after = assign(digests(1001), labels, ["cat"], 0.2, 0.2, seed=1)
    assert (before != after[:1000]).sum() <= 2


def test_which_images_are_in_a_split_is_random():
    # Of the first half about half the test split: a binomial with sd 5 (20 of 100 drawn from each half).
    splits = assign(digests(200), np.zeros(200, int), ["cat"], 0.2, 0.2, seed=3)
    assert 8 <= (splits[:100] == TEST).sum() <= 32


def test_identical_images_stay_together_whatever_their_labels():
    draw_group = random.Random(5)
    names = [f"{draw_group.randrange(150):032x}" for _ in range(400)]  # groups of one to some eight
    labels = np.array([draw_group.randrange(3) for _ in range(400)])
    splits = assign(names, labels, ["a", "b", "c"], 0.2, 0.2, seed=1)
    for name in set(names):
        assert len({split for split, other in zip(splits, names, strict=True) if other == name}) == 1


def test_duplicates_do_not_change_the_sizes_where_groups_allow():
    # 90 single images and 5 pairs.
    names = digests(90) + [f"pair{number // 2}" for number in range(10)]
    labels = np.zeros(100, int)
    for seed in range(20):
        splits = assign(names, labels, ["cat"], 0.2, 0.2, seed)
        assert sizes(splits, labels, 0) == (60, 20, 20)


def test_where_groups_do_not_allow_sizes_come_near():
    # Ten triples: round(0.2 * 30) = 6 is two of them; round(0.25 * 30) = 8 is nearest to nine.
    names, labels = [f"triple{number // 3}" for number in range(30)], np.zeros(30, int)
    assert sizes(assign(names, labels, ["cat"], 0.2, 0.2, seed=1), labels, 0) == (18, 6, 6)
    assert sizes(assign(names, labels, ["cat"], 0.25, 0.0, seed=1), labels, 0) == (21, 9, 0)


def test_every_split_has_a_image_of_every_class_even_with_large_groups():
    # One image 50 times, and two more: each split must have one of the three.
    names = ["common"] * 50 + ["one", "two"]
    splits = assign(names, np.zeros(52, int), ["cat"], 0.2, 0.2, seed=1)
    assert len({splits[0], splits[50], splits[51]}) == 3
    assert splits[0] == TRAIN


def test_a_group_counts_for_the_class_of_its_lowest_label():
    # Both of dog's own images are identical to cats: dog has none of its own to split.
    names, labels = [*digests(9), "same", "same", "also", "also"], np.array([0] * 9 + [0, 1, 0, 1])
    with pytest.raises(UserError, match="class 'dog' has 0 different images"):
        assign(names, labels, ["cat", "dog"], 0.2, 0.2, seed=1)


def test_a_class_too_small_for_three_splits():
    labels = np.array([0, 0, 0, 0, 1, 1])
    with pytest.raises(UserError) as raised:
        assign(digests(6), labels, ["cat", "dog"], 0.2, 0.2, seed=1)
    assert str(raised.value) == (
        "class 'dog' has 2 different images, too few to split into train, validation, "
        "test: it needs at least 3; add images or set data.test=0"
    )
    assert sizes(assign(digests(6), labels, ["cat", "dog"], 0.2, 0.0, seed=1), labels, 1) == (1, 1, 0)


def test_a_class_too_small_for_two_splits():
    with pytest.raises(UserError, match=r"class 'dog' has 1 image, .* at least 2; add images$"):
        assign(digests(5), np.array([0, 0, 0, 0, 1]), ["cat", "dog"], 0.2, 0.0, seed=1)


def test_identical_images_count_once():
    names, labels = [*digests(4), "same", "same", "same"], np.array([0, 0, 0, 0, 1, 1, 1])
    with pytest.raises(UserError, match="class 'dog' has 1 image"):
        assign(names, labels, ["cat", "dog"], 0.2, 0.2, seed=1)


@pytest.mark.parametrize(
    ("validation", "test"), [(0.5, 0.5), (0.9, 0.2), (0.0, 0.2), (1.0, 0.0), (0.2, -0.1)]
)
def test_fractions_that_cannot_be(validation, test):
    with pytest.raises(UserError, match=f"data.validation={validation} and data.test={test} cannot be"):
        assign(digests(9), np.zeros(9, int), ["cat"], validation, test, seed=1)


def test_a_limit_is_named_where_it_made_a_class_small():
    with pytest.raises(UserError, match=r"class 'cat' has 2 different images, .* raise data.limit=4"):
        check_sizes({"cat": 2, "dog": 2}, [TRAIN, VALIDATION, TEST], limit=4)


def drawn(counts: dict[str, int], limit: int | None, seed: int = 1) -> dict[str, int]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    names = [f"{number}.jpg" for number in range(len(labels))]
    indices = draw(names, labels, limit, seed)
    assert indices == sorted(set(indices))
    chosen = [labels[index] for index in indices]
    return {label: chosen.count(label) for label in counts}


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ({"cat": 100, "dog": 100}, None, {"cat": 100, "dog": 100}),
        ({"cat": 100, "dog": 100}, 200, {"cat": 100, "dog": 100}),
        ({"cat": 100, "dog": 100}, 1000, {"cat": 100, "dog": 100}),
        ({"cat": 100, "dog": 100}, 60, {"cat": 30, "dog": 30}),
        ({"cat": 10, "dog": 100}, 60, {"cat": 10, "dog": 50}),
        ({"a": 5, "b": 50, "c": 20}, 60, {"a": 5, "b": 35, "c": 20}),
        ({"a": 5, "b": 50, "c": 50}, 60, {"a": 5, "b": 27, "c": 28}),
        ({"a": 10, "b": 10, "c": 10}, 2, {"a": 0, "b": 1, "c": 1}),
    ],
)
def test_a_limit_is_spread_evenly(counts, limit, expected):
    assert drawn(counts, limit) == expected


def test_a_draw_depends_on_names_and_seed_not_on_order():
    names, labels = [f"{n}.jpg" for n in range(200)], ["cat", "dog"] * 100
    chosen = {names[index] for index in draw(names, labels, 50, seed=1)}
    order = np.random.default_rng(1).permutation(200)
    again = draw([names[i] for i in order], [labels[i] for i in order], 50, seed=1)
    assert {names[order[index]] for index in again} == chosen
    other = {names[index] for index in draw(names, labels, 50, seed=2)}
    assert len(chosen & other) < 30


@pytest.mark.parametrize(
    ("given", "validation", "test", "expected"),
    [
        ({TRAIN: 100, VALIDATION: 30}, 0.5, 0.2, (80, 30, 20)),  # a fifth of the training images
        ({TRAIN: 100, TEST: 30}, 0.25, 0.9, (75, 25, 30)),
        ({TRAIN: 100, VALIDATION: 30}, 0.5, 0.0, (100, 30, 0)),
        ({TRAIN: 100, VALIDATION: 7, TEST: 3}, 0.9, 0.9, (100, 7, 3)),
    ],
)
def test_what_is_not_given_is_cut_from_the_training_images(given, validation, test, expected):
    splits = [split for split, count in given.items() for _ in range(2 * count)]
    labels = np.arange(len(splits)) % 2
    found = complete(digests(len(splits)), labels, ["cat", "dog"], splits, validation, test, seed=1)
    assert sizes(found, labels, 0) == sizes(found, labels, 1) == expected
    for split, count in given.items():
        if split != TRAIN:
            assert (found[np.array(splits) == split] == split).all(), count


def test_a_training_image_that_is_held_out_too_is_left_out_and_never_cut():
    own = digests(40)
    names, given = [*own, own[0], own[1], own[1]], [TRAIN] * 40 + [VALIDATION, VALIDATION, VALIDATION]
    labels = np.array([0, 1] * 20 + [0, 1, 1])
    for seed in range(5):
        found = complete(names, labels, ["cat", "dog"], given, 0.2, 0.2, seed)
        assert (found[:2] == LEFT_OUT).all()
        assert (found[2:40] != LEFT_OUT).all()
        assert (found[40:] == VALIDATION).all()
        assert (found == TEST).sum() == 8  # a fifth of 19, twice


def test_a_class_too_small_to_cut_a_split_from():
    given = [TRAIN] * 4 + [VALIDATION] * 2
    labels = np.array([0, 0, 0, 1, 0, 1])
    with pytest.raises(UserError, match="class 'dog' has 1 image, too few to split into train, test"):
        complete(digests(6), labels, ["cat", "dog"], given, 0.2, 0.2, seed=1)
    found = complete(digests(6), labels, ["cat", "dog"], given, 0.2, 0.0, seed=1)
    assert found.tolist() == given
