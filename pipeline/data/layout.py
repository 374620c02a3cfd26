"""Where the labels of a tree of pictures stand: in its folders' names, or in its files' names.

A pure function of names, the same for a folder and for a zip.
"""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pipeline.errors import UserError

# What Pillow may be able to read, and the two phone formats that it cannot: those are rejected with a reason.
# fmt: off
PICTURE_EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif",
})
_SPLIT_FOLDERS = frozenset({
    "train", "training", "val", "valid", "validation", "test", "test1", "test2", "testing", "eval",
    "evaluation", "dev", "holdout",
})
# fmt: on

LAYOUTS = (
    "one folder a class (Cat/1.jpg, Dog/2.jpg), the same one folder deeper (PetImages/Cat/1.jpg), or names "
    "such as cat.0.jpg, also under train/"
)


@dataclass(frozen=True)
class Rejection:
    """A picture that is left out, and why: `kind`, or `kind: detail`."""

    name: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """What the names say.

    Attributes:
        description: One line: what the tree was understood as.
        labels: The label of each picture's name.
        rejected: Pictures that no label could be told for.
        notes: Lines for the console about what was not used.
    """

    description: str
    labels: dict[str, str]
    rejected: tuple[Rejection, ...]
    notes: tuple[str, ...]


def is_picture(name: str) -> bool:
    """Tells by its extension, in any case, whether a file is meant to be a picture; hidden files are not."""
    return not is_hidden(name) and posixpath.splitext(name)[1].lower() in PICTURE_EXTENSIONS


def is_hidden(name: str) -> bool:
    """Whether a file or folder, or a folder above it, is hidden or macOS's shadow of a zip."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def arrange(where: str, names: Collection[str], folders: Collection[str], others: Collection[str]) -> Layout:
    """Finds the label of each picture.

    Args:
        where: The folder or zip, for messages.
        names: '/'-separated names of the pictures, relative to `where`.
        folders: Names of all folders, with or without pictures.
        others: Names of the files that are no pictures.

    Returns:
        At least two labels, each with at least one picture.

    Raises:
        UserError: There are no pictures, fewer than two classes, or several labelled trees side by side.
    """
    tree = _Tree(names)
    if not tree.count:
        raise UserError(_no_pictures(where, others))
    base, unlabelled = _find_base(where, tree)
    if tree.is_flat(base):
        what, elsewhere = "names such as cat.0.jpg", "not among the pictures with names such as cat.0.jpg"
        labels = {name: tree.labels[name] for name in tree.files[base] if name in tree.labels}
    else:
        what, elsewhere = "one folder a class", "beside or below the class folders, not in one"
        labels = _by_folder(where, tree, base)
    strays = [
        Rejection(name, f"no label: {elsewhere}")
        for folder, files in tree.files.items()
        for name in files
        if name not in labels and folder not in unlabelled
    ]
    _check_classes(where, labels, len(strays))
    under = f" under {base!r}" if base else ""
    return Layout(
        description=f"{where}: {what}{under}",
        labels=labels,
        rejected=tuple(sorted(strays, key=lambda stray: stray.name)),
        notes=tuple(_unused(tree, base, unlabelled, folders, others)),
    )


def label_of_name(name: str) -> str | None:
    """The label in a name such as `train/cat.0.jpg`, or None: what stands before `.NUMBER.extension`."""
    stem = posixpath.splitext(name)[0].rpartition("/")[2]
    label, _, number = stem.rpartition(".")
    return label if label and number.isascii() and number.isdigit() else None


class _Tree:
    """Pictures by folder. '' is the root.

    Attributes:
        count: Pictures in all.
        files: The pictures directly in each folder.
        labels: The labels of the names that are such as cat.0.jpg.
        folders: The folders, with pictures at any depth, directly in each folder.
        sizes: Pictures in each folder, at any depth.
    """

    def __init__(self, names: Collection[str]):
        self.files: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            self.files[posixpath.dirname(name)].append(name)
        self.labels = {name: label for name in names if (label := label_of_name(name))}
        self.folders: dict[str, set[str]] = defaultdict(set)
        self.sizes: Counter[str] = Counter()
        for folder, files in list(self.files.items()):
            self.sizes[folder] += len(files)
            while folder:
                parent = posixpath.dirname(folder)
                self.folders[parent].add(folder)
                self.sizes[parent] += len(files)
                folder = parent
        self.count = self.sizes[""]

    def is_flat(self, folder: str) -> bool:
        """Whether most pictures at or below a folder stand in it and have names such as cat.0.jpg."""
        labelled = sum(name in self.labels for name in self.files.get(folder, ()))
        return 2 * labelled > self.sizes[folder]

    def holds_classes(self, folder: str) -> bool:
        """Whether a folder is a labelled tree of its own: it has folders, or names with several labels."""
        if self.folders.get(folder):
            return True
        labels = {self.labels.get(name) for name in self.files[folder]} - {None}
        return self.is_flat(folder) and len(labels) > 1


def _find_base(where: str, tree: _Tree) -> tuple[str, tuple[str, ...]]:
    """Goes down through wrapping folders (PetImages/, train/) to where the labels start.

    Returns:
        The folder that holds the class folders or the labelled names, and the unlabelled folders (Kaggle's
        test1/) that were passed by.
    """
    base, unlabelled = "", ()
    while not tree.is_flat(base):
        inside = sorted(tree.folders.get(base, ()))
        trees = [folder for folder in inside if tree.holds_classes(folder)]
        splits = [folder for folder in inside if posixpath.basename(folder).lower() in _SPLIT_FOLDERS]
        if len(inside) > 1 and splits == inside and len(trees) == 1:
            unlabelled += tuple(folder for folder in inside if folder not in trees)
        elif len(inside) > 1 and (splits == inside or set(splits) & set(trees)):
            raise UserError(_split_already(where, inside, trees))
        elif len(inside) != 1 or not trees:
            break
        (base,) = trees
    return base, unlabelled


def _by_folder(where: str, tree: _Tree, base: str) -> dict[str, str]:
    """Labels by the name of the folder that a picture stands in."""
    inside = tree.folders.get(base, ())
    if not inside:
        raise UserError(
            f"the pictures in {where} carry no labels: their names ({_some(tree.files[base])}) are not like "
            f"cat.0.jpg, and they stand in no class folders; allowed: {LAYOUTS}"
        )
    labels = {name: posixpath.basename(folder) for folder in inside for name in tree.files.get(folder, ())}
    if not labels:
        raise UserError(
            f"{where} holds several trees of class folders: {_some(sorted(inside))}; allowed: {LAYOUTS}; "
            "point data.source at one of them"
        )
    return labels


def _check_classes(where: str, labels: dict[str, str], strays: int) -> None:
    classes = set(labels.values())
    if len(classes) < 2:
        raise UserError(
            f"{where} has only one class, {classes.pop()!r} ({len(labels):,} of {len(labels) + strays:,} "
            f"pictures); at least two are needed; allowed: {LAYOUTS}"
        )


def _unused(
    tree: _Tree, base: str, unlabelled: Collection[str], folders: Collection[str], others: Collection[str]
) -> Iterator[str]:
    for folder in unlabelled:
        yield f"pictures without labels in {folder!r}, ignored: {tree.sizes[folder]:,}"
    for folder in sorted(folders):
        if posixpath.dirname(folder) == base and not tree.sizes[folder] and not is_hidden(folder):
            yield f"folder {folder!r} has no pictures, ignored"
    if others:
        yield f"files that are no pictures, ignored: {len(others):,} ({_some(sorted(others))})"


def _no_pictures(where: str, others: Collection[str]) -> str:
    found = f"{len(others):,} other files ({_some(sorted(others))})" if others else "nothing"
    return (
        f"{where} has no pictures: found {found}; pictures are told by their extension: "
        f"{' '.join(sorted(PICTURE_EXTENSIONS))}; allowed: {LAYOUTS}; point data.source at a folder or zip "
        "like that"
    )


def _split_already(where: str, inside: list[str], trees: list[str]) -> str:
    if not trees:
        return (
            f"{where} has only folders named like splits ({_some(inside)}), without labels; "
            f"allowed: {LAYOUTS}; name the folders after classes"
        )
    return (
        f"{where} has labelled pictures under {_some(trees)}; its folders are {_some(inside)}: it looks "
        "split already; splits are made here, by data.validation and data.test: point data.source at one of "
        "the folders"
    )


def _some(names: Collection[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown = [repr(name) for name in list(names)[:most]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
