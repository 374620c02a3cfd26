"""How often the intervals of scores hold: `python -m benchmarks.coverage`.

Classifiers of uneven classes, each with an accuracy and favourite confusions of its own, answer sets of
images that are drawn alike. Counts how many 95 % intervals hold the score's expectation over such sets,
and whether each has its own estimate within. Some 30 s of CPU time; nothing is asserted.
"""

import numpy as np

from pipeline.evaluation import intervals

# classes, about how many images of each, accuracy, sets that are drawn
SETTINGS = (
    (2, 5, 0.8, 400), (2, 20, 0.8, 400), (2, 200, 0.8, 400), (3, 2, 0.8, 400), (3, 20, 0.9, 400),
    (10, 1, 0.8, 400), (10, 2, 0.8, 400), (10, 5, 0.8, 400), (10, 50, 0.8, 400), (100, 1, 0.8, 200),
    (100, 2, 0.8, 200), (100, 5, 0.9, 200), (100, 50, 0.8, 100), (1000, 2, 0.9, 40), (1000, 10, 0.8, 40),
)  # fmt: skip
ROUNDING = 1e-12


def classifier(classes: int, accuracy: float, rng: np.random.Generator) -> np.ndarray:
    """(classes, classes): how likely each class is answered for an image of each."""
    chances = np.zeros((classes, classes))
    for number in range(classes):
        right = np.clip(accuracy + rng.normal(0, 0.07), 0.05, 0.99)
        count = min(classes - 1, 5)
        others = rng.choice(np.delete(np.arange(classes), number), count, replace=False)
        chances[number, others] = (1 - right) * rng.dirichlet(np.ones(count))
        chances[number, number] = right
    return chances


def estimates(confusion: np.ndarray) -> np.ndarray:
    """(6,): the averages of a confusion matrix."""
    hits, answers = np.diag(confusion)[:, None], confusion.sum(axis=0)[:, None]
    return intervals.averages(hits, answers, confusion.sum(axis=1))[:, 0]


def main() -> None:
    """Print a row of a Markdown table for each setting."""
    names = [name.replace("_", " ") for name in intervals.AVERAGES]
    print(f"| classes | images of each | sets | {' | '.join(names)} | with its estimate |")
    print("|--:|--:|--:|" + "--:|" * (len(names) + 1))
    for classes, images, accuracy, sets in SETTINGS:
        rng = np.random.default_rng(1)
        chances = classifier(classes, accuracy, rng)
        counts = np.full(classes, images) if images < 5 else rng.integers(images // 2, images * 2, classes)
        many = 4000 if classes <= 100 else 400
        expected = np.mean([estimates(rng.multinomial(counts, chances)) for _ in range(many)], axis=0)
        held, own = np.zeros(len(names)), 0.0
        for seed in range(sets):
            drawn = rng.multinomial(counts, chances)
            low, high = np.transpose(list(intervals.bootstrap(drawn, seed).values()))
            held += (low - ROUNDING <= expected) & (expected <= high + ROUNDING)
            found = estimates(drawn)
            own += ((low - ROUNDING <= found) & (found <= high + ROUNDING)).mean()
        spread = f"{counts.min():,}" + (f" to {counts.max():,}" if counts.min() < counts.max() else "")
        shares = " | ".join(f"{share:.2f}" for share in held / sets)
        print(f"| {classes:,} | {spread} | {sets} | {shares} | {own / sets:.2f} |", flush=True)


if __name__ == "__main__":
    main()
