"""What was found as a page, and as lines for the console."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from pipeline import pages
from pipeline.dataset.prepare import Prepared
from pipeline.doctor.cost import Needs
from pipeline.doctor.findings import Finding, Row
from pipeline.doctor.image_stats import Looks
from pipeline.runtime.console import duration, file_size
from pipeline.sources.images import UnreadableImage, decode
from pipeline.sources.source import SourceImage
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION

SHOWN = 24  # images, or pairs, of each kind; findings.csv has all
LISTED = 24  # rows of a table of findings without images

_SIDE = 128  # px of a thumbnail
_QUALITY = 70  # of its JPEG: some 5 kB
_GROUND = (128, 128, 128)


@dataclass(frozen=True, eq=False)
class Examination:
    """All that was found out.

    Attributes:
        source: what `data.source` names, as it was understood.
        prepared: the images; None where there are none to train on.
        looks: what their files are.
        findings: what was found.
        needs: what the sweep takes; None where that could not be measured.
        room: lines on whether there is room for it.
        problems: why the sweep would fail; empty where it would not.
    """

    source: str
    prepared: Prepared | None
    looks: Looks | None
    findings: tuple[Finding, ...]
    needs: Needs | None
    room: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.problems:
            return f"The sweep would fail: {self.problems[0]}"
        to_do = sum(finding.to_do for finding in self.findings) + len(self.room)
        if to_do:
            return f"Ready, with {to_do} {'thing' if to_do == 1 else 'things'} to look at"
        return "Ready to sweep"


def console(examination: Examination) -> list[str]:
    """The findings as a short table, what the sweep takes, and the verdict."""
    lines = [
        f"{finding.count:>7,}  {'look at' if finding.to_do else 'know'}  {finding.title}"
        for finding in examination.findings
    ]
    if examination.needs:
        time, memory, disk = (text for _, text in needed(examination.needs))
        lines.append(f"the sweep takes {time}; memory: {memory}; disk: {disk}")
    return [*lines, *examination.room, *([] if examination.problems else [examination.verdict])]


def needed(needs: Needs) -> list[tuple[str, str]]:
    """The time, the memory and the disk space of a sweep, as text."""
    seconds = duration(round(needs.seconds, -1))
    return [
        ("time", f"some {seconds} ({needs.cells:,} cells, {needs.room.workers} at a time)"),
        ("memory", f"{file_size(needs.memory)} of {file_size(needs.room.memory)}"),
        (
            "disk",
            f"{file_size(needs.disk)}, {file_size(needs.room.disk)} are free; the prepared images have their "
            f"{file_size(needs.prepared)} already",
        ),
    ]


def html(examination: Examination, images: Mapping[str, SourceImage]) -> bytes:
    """doctor.html.

    Args:
        examination: what it shows.
        images: of the source, by name, for thumbnails.
    """
    prepared, looks = examination.prepared, examination.looks
    facts = []
    if prepared:
        facts.append(("Images", f"{len(prepared.names):,}"))
        facts.append(("Prepared as", f"{prepared.image_size} x {prepared.image_size} px, RGB"))
    if looks:
        facts.append(("Sizes", looks.spread()))
        facts.append(("Formats", _counts(looks.formats)))
        facts.append(("Modes", _counts(looks.modes)))
    return pages.render(
        "doctor.html.j2",
        verdict=examination.verdict,
        ready=not examination.problems,
        problems=examination.problems,
        room=examination.room,
        source=examination.source,
        facts=facts,
        classes=_classes(prepared) if prepared else ([], ""),
        findings=[
            (finding, _thumbnails(finding, images), _listed(finding)) for finding in examination.findings
        ],
        needs=needed(examination.needs) if examination.needs else [],
    )


def _classes(prepared: Prepared) -> tuple[list[list[str | int]], str]:
    """The images of the classes that are shown, in all and in each split, and which classes those are."""
    counts = [prepared.counts(split) for split in (TRAIN, VALIDATION, TEST)]
    whole = {name: sum(count[name] for count in counts) for name in prepared.classes}
    names, which = pages.extremes(whole)
    return [[name, whole[name], *(count[name] for count in counts)] for name in names], which


def _thumbnails(finding: Finding, images: Mapping[str, SourceImage]) -> list[dict[str, object]]:
    """The first images of a finding, as the page's template takes them."""
    if not finding.has_images:
        return []
    found = []
    for row in finding.rows[:SHOWN]:
        names = [row.image, row.other] if row.other else [row.image]
        image = _side_by_side([images[name] for name in names])
        if image is not None:
            found.append({"source": image, "alt": " and ".join(names), "caption": _caption(row)})
    return found


def _caption(row: Row) -> list[str]:
    if not row.other:
        return [f"{row.label}? More likely {row.other_label}", row.detail, f"{row.image} ({row.split})"]
    return [
        f"{row.image} ({row.label}, {row.split})",
        f"{row.other} ({row.other_label}, {row.other_split})",
        row.detail,
    ]


def _listed(finding: Finding) -> list[list[str]]:
    """The first rows of a finding that has no images."""
    if finding.has_images:
        return []
    rows = finding.rows[:LISTED]
    return [[row.image, row.label, row.detail] if row.image else [row.label, row.detail] for row in rows]


def _side_by_side(images: Sequence[SourceImage]) -> str | None:
    """One or two images as the data URI of a JPEG; None where one cannot be read any more."""
    canvas = Image.new("RGB", (len(images) * (_SIDE + 4) - 4, _SIDE), _GROUND)
    for number, image in enumerate(images):
        try:
            thumbnail = ImageOps.contain(decode(image.read()), (_SIDE, _SIDE))
        except UnreadableImage:
            return None
        left, top = (_SIDE - thumbnail.width) // 2, (_SIDE - thumbnail.height) // 2
        canvas.paste(thumbnail, (number * (_SIDE + 4) + left, top))
    content = io.BytesIO()
    canvas.save(content, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
