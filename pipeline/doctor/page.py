"""The doctor's findings as a page and as console lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import pages
from pipeline.dataset.prepare import Prepared
from pipeline.doctor.class_balance import class_counts
from pipeline.doctor.cost import Cost
from pipeline.doctor.findings import Finding, Row
from pipeline.doctor.image_stats import HeaderStats
from pipeline.pages import thumbnails
from pipeline.runtime.console import counted
from pipeline.sources.images import UnreadableImage, decode
from pipeline.sources.source import SourceImage
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION

MAX_IMAGES = 24  # images or pairs shown per finding; findings.csv has all
MAX_ROWS = 24  # of the table of a finding without images

_SIDE = 128  # px of a thumbnail


@dataclass(frozen=True, eq=False)
class Examination:
    """Everything the doctor found.

    Attributes:
        source: How `data.source` was read; empty if it could not be.
        prepared: The dataset; None if there is none to train on.
        stats: The headers of the image files; None without a dataset.
        findings: Warnings first.
        cost: Of the sweep; None if it could not be measured.
        shortages: Warnings on resources that the sweep lacks.
        problems: Why the sweep would fail; empty if it would not.
    """

    source: str
    prepared: Prepared | None
    stats: HeaderStats | None
    findings: tuple[Finding, ...]
    cost: Cost | None
    shortages: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.problems:
            return f"The sweep would fail: {self.problems[0]}"
        warnings = sum(finding.is_warning for finding in self.findings) + len(self.shortages)
        return f"Ready to sweep, with {counted(warnings, 'warning')}" if warnings else "Ready to sweep"


def console(examination: Examination) -> list[str]:
    """The findings as a short table, the cost of the sweep, and the verdict."""
    lines = [
        f"{'warning' if finding.is_warning else 'note':<9}{finding.title}" for finding in examination.findings
    ]
    if examination.cost:
        estimated = "; ".join(f"{name}: {text}" for name, text in examination.cost.texts())
        lines.append(f"estimated cost of the sweep: {estimated}")
    return [*lines, *examination.shortages, *([] if examination.problems else [examination.verdict])]


def html(examination: Examination, images: Mapping[str, SourceImage]) -> bytes:
    """The content of doctor.html.

    Args:
        examination: What the page shows.
        images: The source's images by name, for thumbnails.
    """
    prepared, stats = examination.prepared, examination.stats
    facts = []
    if prepared:
        facts.append(("Images", f"{len(prepared.names):,}"))
        facts.append(("Prepared as", f"{prepared.image_size} x {prepared.image_size} px, RGB"))
    if stats:
        facts.append(("Sizes", stats.size_range()))
        facts.append(("Formats", _counts(stats.formats)))
        facts.append(("Modes", _counts(stats.modes)))
    return pages.render(
        "doctor.html.j2",
        verdict=examination.verdict,
        ready=not examination.problems,
        problems=examination.problems,
        shortages=examination.shortages,
        source=examination.source,
        facts=facts,
        classes=_classes(prepared) if prepared else ([], ""),
        findings=[
            (finding, _thumbnails(finding, images), _rows(finding)) for finding in examination.findings
        ],
        cost=examination.cost.texts() if examination.cost else [],
    )


def _classes(prepared: Prepared) -> tuple[list[list[str | int]], str]:
    """Rows of class, images, and images of each split; and a sentence if some classes are left out."""
    counts = [prepared.counts(split) for split in (TRAIN, VALIDATION, TEST)]
    totals = class_counts(prepared)
    names, which = pages.extremes(totals)
    return [[name, totals[name], *(count[name] for count in counts)] for name in names], which


def _thumbnails(finding: Finding, images: Mapping[str, SourceImage]) -> list[dict[str, Any]]:
    """The first images or pairs of a finding, for the template; without those that became unreadable."""
    found = []
    for row in finding.rows[:MAX_IMAGES] if finding.has_images else ():
        names = [row.image, row.other] if row.other else [row.image]
        try:
            decoded = [decode(images[name].read()) for name in names]
        except UnreadableImage:
            continue
        image = thumbnails.data_uri(thumbnails.jpeg(thumbnails.side_by_side(decoded, _SIDE)))
        found.append({"source": image, "alt": " and ".join(names), "caption": _caption(row)})
    return found


def _caption(row: Row) -> list[str]:
    if not row.other:
        return [f"label {row.label}, predicted {row.other_label}", row.detail, f"{row.image} ({row.split})"]
    return [
        f"{row.image} ({row.label}, {row.split})",
        f"{row.other} ({row.other_label}, {row.other_split})",
        row.detail,
    ]


def _rows(finding: Finding) -> list[list[str]]:
    """The first rows of a finding without images."""
    rows = () if finding.has_images else finding.rows[:MAX_ROWS]
    return [[row.image, row.label, row.detail] if row.image else [row.label, row.detail] for row in rows]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
