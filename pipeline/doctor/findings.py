"""What was found: one kind of thing each, with what it means and what to do, and the rows of findings.csv."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields

KEYS = (
    "left_out",
    "imbalance",
    "few_images",
    "same_image_two_labels",
    "leaks",
    "near_duplicates",
    "exact_duplicates",
    "suspected_labels",
    "enlarged",
)


@dataclass(frozen=True)
class Row:
    """A line of findings.csv: an image, or two that have to do with each other."""

    kind: str
    image: str
    label: str = ""
    other: str = ""
    other_label: str = ""
    split: str = ""
    other_split: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found, at least once.

    Attributes:
        key: one of `KEYS`.
        title: with its count.
        count: how many.
        to_do: whether somebody should look at it; otherwise it is only worth knowing.
        meaning: what it does to a training.
        advice: the next move; empty where there is none.
        rows: all of them, what matters most first.
        has_images: whether the page shows images of them.
    """

    key: str
    title: str
    count: int
    to_do: bool
    meaning: str
    advice: str
    rows: tuple[Row, ...]
    has_images: bool = True


def table(findings: Iterable[Finding]) -> bytes:
    """findings.csv: every row of every finding."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for finding in findings for row in finding.rows)
    return text.getvalue().encode()
