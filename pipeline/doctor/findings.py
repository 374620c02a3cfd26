"""A finding of the doctor: what it is, its effect, the advice, and its rows in findings.csv."""

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
    "upsampled",
)


@dataclass(frozen=True)
class Row:
    """A row of findings.csv: an image, a pair of images, or a class (`image` is empty)."""

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
    """One kind of problem, found at least once.

    Attributes:
        key: One of `KEYS`.
        title: One line, with the count.
        count: Number of images, pairs or classes.
        is_warning: Whether it needs attention; otherwise it is for information.
        meaning: The effect on training and scores.
        advice: What to do.
        rows: All of them, the most important first.
        has_images: Whether the page shows their images.
    """

    key: str
    title: str
    count: int
    is_warning: bool
    meaning: str
    advice: str
    rows: tuple[Row, ...]
    has_images: bool = True


def table(findings: Iterable[Finding]) -> bytes:
    r"""The content of findings.csv: a header, and every row of every finding; UTF-8.

    >>> table([]).decode()
    'kind,image,label,other,other_label,split,other_split,detail\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for finding in findings for row in finding.rows)
    return text.getvalue().encode()
