"""Where labelled images come from: the drawn sample, a folder, a zip, or a download of one.

A source is listed, not read: each image carries a function that reads its bytes when they are wanted.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.sources.layout import LAYOUTS, PICTURE_EXTENSIONS, Layout, Rejection, arrange, is_image
from pipeline.sources.listing import Listing, read_file, valid_name
from pipeline.sources.zips import Archive, check_zip

__all__ = ["Rejection", "Source", "SourceImage", "list_images", "open_source"]


@dataclass(frozen=True)
class SourceImage:
    """A labelled image that is not yet read.

    Attributes:
        name: '/'-separated, relative to the source; always valid Unicode.
        label: The name of its class; empty where it has none.
        split: The split that the source gives it; empty where it gives none.
        read: Returns the encoded bytes, or raises UnreadableImage; safe from any thread.
    """

    name: str
    label: str
    read: Callable[[], bytes]
    split: str = ""


@dataclass(frozen=True)
class Source:
    """Labelled images.

    Attributes:
        description: One line: what the source was understood as.
        images: Sorted by name.
        rejected: Images without a label, sorted by name.
        notes: Lines for the console about what was not used.
        given: The folder of each split that the source gives; empty where they are drawn here.
        fingerprint: Changes when any image may have changed: names, sizes, and times or checksums.
    """

    description: str
    images: tuple[SourceImage, ...]
    rejected: tuple[Rejection, ...]
    notes: tuple[str, ...]
    fingerprint: str
    given: Mapping[str, str] = field(default_factory=dict)


def open_source(source: str, cache: Path, sha256: str | None = None, keep_splits: bool = True) -> Source:
    """Lists the images that `data.source` names.

    Args:
        source: 'sample', 'dogs-vs-cats', the http(s) URL of a zip, or the path of a folder or a zip.
        cache: The folder where downloads are kept.
        sha256: Of the zip behind a URL, where known, in hexadecimal.
        keep_splits: Whether splits that it has are to be used; else its images are pooled.

    Raises:
        UserError: There is no such thing, it cannot be read, or it has no two classes of images.
    """
    if source == "sample":
        return _sample()
    if source == "dogs-vs-cats" or source.lower().startswith(("http://", "https://")):
        return _from_zip(_download(source, cache, sha256), keep_splits)
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return _from_folder(path, keep_splits)
    if path.is_file():
        return _from_zip(path, keep_splits)
    found = "is neither a folder nor a file" if path.exists() else "does not exist"
    raise UserError(
        f"data.source: {valid_name(str(path))} {found}; allowed: 'sample', 'dogs-vs-cats', a folder, a zip, "
        f"or the http(s) URL of a zip, with {LAYOUTS}"
    )


def list_images(source: str, key: str) -> list[SourceImage]:
    """Lists images that need no labels.

    Args:
        source: A folder with images at any depth, a zip, an image's file, or several files as a JSON list.
        key: The parameter that names it, for messages.

    Returns:
        At least one; those of a folder or zip sorted by name, and named relative to it. Files stay in order.

    Raises:
        UserError: There is no such thing, it cannot be read, or it has no images.
    """
    if files := _as_list(source):
        return [
            SourceImage(valid_name(file), "", partial(read_file, str(_existing(file, key)))) for file in files
        ]
    path = _existing(source, key)
    try:
        readers = _unlabelled(path)
    except UserError as error:  # listing is written for the parameter that training has
        raise UserError(str(error).replace("data.source", key)) from error
    if not readers:
        raise UserError(
            f"{key}: {valid_name(str(path))} has no images; recognised extensions: "
            f"{' '.join(sorted(PICTURE_EXTENSIONS))}"
        )
    return [SourceImage(name, "", read) for name, read in sorted(readers.items())]


def _as_list(source: str) -> list[str]:
    """The files that a JSON list names; none where the text is a path."""
    try:
        files = json.loads(source)
    except json.JSONDecodeError:
        return []
    return [str(file) for file in files] if isinstance(files, list) else []


def _existing(source: str, key: str) -> Path:
    path = Path(source).expanduser().absolute()
    if not path.is_dir() and not path.is_file():
        found = "is neither a folder nor a file" if path.exists() else "does not exist"
        raise UserError(
            f"{key}: {valid_name(str(path))} {found}; allowed: a folder, a zip, an image, or a JSON "
            "list of such"
        )
    return path


def _unlabelled(path: Path) -> dict[str, Callable[[], bytes]]:
    if path.is_dir():
        tree = Listing(path, max_depth=None)
        return {name: partial(read_file, file) for name, (file, _, _) in tree.images.items()}
    if path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):
        return {valid_name(path.name): partial(read_file, str(path))}
    archive = Archive(path)
    return {valid_name(name): partial(archive.read, name) for name in archive.members if is_image(name)}


def _sample() -> Source:
    from pipeline.sources import drawing, sample

    def read(label: str, number: int) -> bytes:
        png = io.BytesIO()
        sample.draw(label, number).save(png, "PNG", compress_level=1)
        return png.getvalue()

    images = [
        SourceImage(f"{label}.{number}.png", label, partial(read, label, number))
        for label in sample.CLASSES
        for number in range(sample.PICTURES_PER_CLASS)
    ]
    program = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (drawing, sample)]
    return Source(
        description="sample (images drawn by this program, not photos)",
        images=tuple(sorted(images, key=lambda image: image.name)),
        rejected=(),
        notes=(),
        fingerprint=_fingerprint("sample", [*program, *sample.CLASSES, sample.PICTURES_PER_CLASS]),
    )


def _download(source: str, cache: Path, sha256: str | None) -> Path:
    from pipeline.sources.download import DOGS_VS_CATS, fetch
    from pipeline.sources.download_cache import Remote

    remote = DOGS_VS_CATS if source == "dogs-vs-cats" else Remote(source, sha256=sha256)
    return fetch(remote, cache / "downloads", check=check_zip)


def _from_zip(path: Path, keep_splits: bool) -> Source:
    try:
        archive = Archive(path)
    except OSError as error:
        raise UserError(f"data.source: {valid_name(str(path))} cannot be read: {error.strerror}") from error
    stamps = {
        name: (info.file_size, info.CRC) for name, info in sorted(archive.members.items()) if is_image(name)
    }
    notes: tuple[str, ...] = ()
    if archive.duplicates:
        notes = (
            f"files of the zip that a later one of the same name hides, ignored: {archive.duplicates:,}",
        )
    readers = {name: partial(archive.read, name) for name in stamps}
    others = archive.members.keys() - stamps.keys()
    layout = arrange(valid_name(str(path)), readers, archive.folders, others, keep_splits)
    return _labelled(layout, readers, _fingerprint("zip", stamps.items()), notes)


def _from_folder(root: Path, keep_splits: bool) -> Source:
    tree = Listing(root)
    notes = tuple(f"folder {name!r} is too deep, ignored" for name in tree.too_deep)
    readers = {name: partial(read_file, path) for name, (path, _, _) in tree.images.items()}
    stamps = sorted((name, size, time) for name, (_, size, time) in tree.images.items())
    layout = arrange(valid_name(str(root)), readers, tree.folders, tree.others, keep_splits)
    return _labelled(layout, readers, _fingerprint("folder", stamps), notes)


def _labelled(
    layout: Layout, readers: Mapping[str, Callable[[], bytes]], fingerprint: str, notes: tuple[str, ...]
) -> Source:
    """Gives what was listed its labels and its splits."""
    return Source(
        description=layout.description,
        images=tuple(
            SourceImage(name, layout.labels[name], readers[name], layout.splits.get(name, ""))
            for name in sorted(layout.labels)
        ),
        rejected=layout.rejected,
        notes=notes + layout.notes,
        fingerprint=fingerprint,
        given=layout.given,
    )


def _fingerprint(kind: str, records: Iterable[object]) -> str:
    return hashlib.sha256(repr((kind, list(records))).encode()).hexdigest()
