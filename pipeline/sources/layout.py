"""Where the labels of a tree of images stand: in its folders' names, or in its files' names.

A pure function of names, the same for a folder and for a zip.
"""

import posixpath
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pipeline.runtime.console import few
from pipeline.runtime.errors import UserError
from pipeline.sources import split_names
from pipeline.sources.split_names import TRAIN
from pipeline.sources.tree import Tree

# What Pillow may be able to read, and the two phone formats that it cannot: those are rejected with a reason.
# fmt: off
PICTURE_EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif",
})
# fmt: on

LAYOUTS = (
    "one folder per class (Cat/1.jpg, Dog/2.jpg), the same a folder deeper (PetImages/Cat/1.jpg), names such "
    "as cat.0.jpg, or any of these under train/, val/ and test/"
)


@dataclass(frozen=True)
class Rejection:
    """An image that is left out, and why: `kind`, or `kind: detail`."""

    name: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """What the names say.

    Attributes:
        description: One line: what the tree was understood as.
        labels: The label of each image's name.
        given: The folder of each split that the tree has and that is kept: TRAIN first, and one or two more.
        splits: The split of each image's name; empty where none is given.
        rejected: Images without a recognised label.
        notes: Lines for the console about what was not used.
    """

    description: str
    labels: dict[str, str]
    given: dict[str, str]
    splits: dict[str, str]
    rejected: tuple[Rejection, ...]
    notes: tuple[str, ...]


def is_image(name: str) -> bool:
    """Tells by its extension, in any case, whether a file is meant to be an image; hidden files are not."""
    return not is_hidden(name) and posixpath.splitext(name)[1].lower() in PICTURE_EXTENSIONS


def is_hidden(name: str) -> bool:
    """Whether a file or folder, or a folder above it, is hidden or macOS's shadow of a zip."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def arrange(
    where: str,
    names: Collection[str],
    folders: Collection[str],
    others: Collection[str],
    keep_splits: bool = True,
) -> Layout:
    """Finds the label of each image.

    Args:
        where: The folder or zip, for messages.
        names: '/'-separated names of the images, relative to `where`.
        folders: Names of all folders, with or without images.
        others: Names of the files that are no images.
        keep_splits: Whether splits that the tree has are to be used; else its images are pooled.

    Returns:
        At least two labels, each with at least one image.

    Raises:
        UserError: There are no images, fewer than two classes, or several labelled trees side by side; or
            given splits that are kept have no training images, or none of some class.
    """
    tree = Tree(names)
    if not tree.count:
        raise UserError(_no_images(where, others))
    base, split_folders, unlabelled = _find_base(where, tree)
    if keep_splits and split_folders:
        split_names.check_training(where, split_folders)
    parts = {split: _part(where, tree, folder) for split, folder in split_folders.items()}
    for split in [split for split in parts if _is_unlabelled(parts, split)]:
        unlabelled += (split_folders.pop(split),)
        parts.pop(split)
    parts = parts or {"": _part(where, tree, base)}
    labels = {name: label for part in parts.values() for name, label in part.labels.items()}
    (first, *_) = parts.values()
    strays = [
        Rejection(name, f"no label: {first.elsewhere}")
        for folder, files in tree.files.items()
        for name in files
        if name not in labels and not any(_is_in(folder, other) for other in unlabelled)
    ]
    split_folders = split_folders if len(parts) > 1 else {}
    kept = split_folders if keep_splits else {}
    notes = []
    if split_folders and not kept:
        notes.append(f"the splits {_listed(split_folders.values())} are pooled: data.splits=random")
    for split in kept:
        split_names.check_classes(where, split, parts[split].labels.values(), first.labels.values())
    _check_classes(where, labels, len(strays))
    under = ", ".join(map(repr, split_folders.values() or filter(None, [first.base])))
    return Layout(
        description=f"{where}: {first.what}{f' under {under}' if under else ''}",
        labels=labels,
        given=kept,
        splits={name: split for split in kept for name in parts[split].labels},
        rejected=tuple(sorted(strays, key=lambda stray: stray.name)),
        notes=(*notes, *_unused(tree, [part.base for part in parts.values()], unlabelled, folders, others)),
    )


@dataclass(frozen=True)
class _Part:
    """The labels below one folder: all there are, or those of one given split.

    Attributes:
        base: The folder that holds the class folders or the labelled names.
        what: How they are labelled, for people.
        elsewhere: Where an image is that is not.
        labels: The label of each image's name.
    """

    base: str
    what: str
    elsewhere: str
    labels: dict[str, str]


def _part(where: str, tree: Tree, folder: str) -> _Part:
    """Labels what lies below a folder, whatever wraps it."""
    base, inner, _ = _find_base(where, tree, folder)
    if inner:
        raise UserError(
            f"{where}: {folder!r} has splits of its own, {_listed(sorted(inner.values()))}: point "
            "data.source at it, or remove them"
        )
    if tree.is_flat(base):
        what, elsewhere = "names such as cat.0.jpg", "not among the images with names such as cat.0.jpg"
        labels = {name: tree.labels[name] for name in tree.files[base] if name in tree.labels}
    else:
        what, elsewhere = "one folder per class", "beside or below the class folders, not in one"
        labels = _by_folder(where, tree, base)
    return _Part(base, what, elsewhere, labels)


def _is_unlabelled(parts: dict[str, _Part], split: str) -> bool:
    """Whether a split's only folder is no class of the training images: Kaggle's test/test/1.jpg."""
    classes = set(parts[split].labels.values())
    return TRAIN in parts and len(classes) == 1 and not classes & set(parts[TRAIN].labels.values())


def _find_base(where: str, tree: Tree, base: str = "") -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Goes down through wrapping folders (PetImages/, train/) to where the labels or the splits start.

    Args:
        where: The folder or zip, for messages.
        tree: What is in it.
        base: The folder to start from.

    Returns:
        The folder that holds the class folders, the labelled names or the folders of splits; these by split,
        where it holds two or more that are labelled; and the unlabelled folders (Kaggle's test1/) passed by.
    """
    unlabelled: tuple[str, ...] = ()
    while not tree.is_flat(base):
        inside = sorted(tree.folders.get(base, ()))
        trees = [folder for folder in inside if tree.holds_classes(folder)]
        splits = [folder for folder in inside if split_names.split_of(folder)]
        labelled = [folder for folder in splits if tree.is_labelled(folder)]
        if len(labelled) > 1:
            if beside := [folder for folder in trees if folder not in splits]:
                raise UserError(_beside_splits(where, labelled, beside))
            found = split_names.by_split(where, labelled)
            passed_by = [folder for folder in splits if folder not in found.values()]
            return base, found, (*unlabelled, *passed_by)
        if len(inside) > 1 and splits == inside and len(trees) == 1:
            unlabelled += tuple(folder for folder in inside if folder not in trees)
        elif len(inside) > 1 and (splits == inside or set(splits) & set(trees)):
            raise UserError(_without_labels(where, inside, trees))
        elif len(inside) != 1 or not trees:
            break
        (base,) = trees
    return base, {}, unlabelled


def _by_folder(where: str, tree: Tree, base: str) -> dict[str, str]:
    """Labels by the name of the folder that an image is in."""
    inside = tree.folders.get(base, ())
    if not inside:
        raise UserError(
            f"the images in {where} carry no labels: their names ({_listed(tree.files[base])}) are not like "
            f"cat.0.jpg, and they are in no class folders; allowed: {LAYOUTS}"
        )
    labels = {name: posixpath.basename(folder) for folder in inside for name in tree.files.get(folder, ())}
    if not labels:
        raise UserError(
            f"{where} holds several trees of class folders: {_listed(sorted(inside))}; allowed: {LAYOUTS}; "
            "point data.source at one of them"
        )
    return labels


def _check_classes(where: str, labels: dict[str, str], strays: int) -> None:
    classes = set(labels.values())
    if len(classes) < 2:
        raise UserError(
            f"{where} has only one class, {classes.pop()!r} ({len(labels):,} of {len(labels) + strays:,} "
            f"images); at least two are needed; allowed: {LAYOUTS}"
        )


def _unused(
    tree: Tree,
    bases: Collection[str],
    unlabelled: Collection[str],
    folders: Collection[str],
    others: Collection[str],
) -> Iterator[str]:
    for folder in unlabelled:
        yield f"images without labels in {folder!r}, ignored: {tree.sizes[folder]:,}"
    for folder in sorted(folders):
        if posixpath.dirname(folder) in bases and not tree.sizes[folder] and not is_hidden(folder):
            yield f"folder {folder!r} has no images, ignored"
    if others:
        yield f"files that are no images, ignored: {len(others):,} ({_listed(sorted(others))})"


def _is_in(folder: str, outer: str) -> bool:
    return folder == outer or folder.startswith(f"{outer}/")


def _no_images(where: str, others: Collection[str]) -> str:
    found = f"{len(others):,} other files ({_listed(sorted(others))})" if others else "nothing"
    return (
        f"{where} has no images: found {found}; recognised extensions: "
        f"{' '.join(sorted(PICTURE_EXTENSIONS))}; allowed: {LAYOUTS}; point data.source at a folder or zip "
        "like that"
    )


def _without_labels(where: str, inside: Collection[str], trees: Collection[str]) -> str:
    if not trees:
        return (
            f"{where} has only folders named like splits ({_listed(inside)}), without labels; "
            f"allowed: {LAYOUTS}; name the folders after classes"
        )
    return (
        f"{where} has labelled images under {_listed(trees)}, and other folders beside: {_listed(inside)}; "
        "point data.source at one of them"
    )


def _beside_splits(where: str, splits: Collection[str], others: Collection[str]) -> str:
    return (
        f"{where} has the splits {_listed(splits)}, and beside them labelled images under {_listed(others)}: "
        "move those elsewhere"
    )


def _listed(names: Iterable[str]) -> str:
    return few(map(repr, names), 3)
