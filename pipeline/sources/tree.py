"""The tree of a source's names: folders, files and the labels in names such as cat.0.jpg."""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection


def label_of_name(name: str) -> str | None:
    """The label in a name such as `train/cat.0.jpg`, or None: what stands before `.NUMBER.extension`."""
    stem = posixpath.splitext(name)[0].rpartition("/")[2]
    label, _, number = stem.rpartition(".")
    return label if label and number.isascii() and number.isdigit() else None


class Tree:
    """Images by folder. '' is the root.

    Attributes:
        count: Images in all.
        files: The images directly in each folder.
        labels: The labels of the names that are such as cat.0.jpg.
        folders: The folders, with images at any depth, directly in each folder.
        sizes: Images in each folder, at any depth.
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
        """Whether most images at or below a folder are directly in it and have names such as cat.0.jpg."""
        labelled = sum(name in self.labels for name in self.files.get(folder, ()))
        return 2 * labelled > self.sizes[folder]

    def is_labelled(self, folder: str) -> bool:
        """Whether a folder named like a split has labels, be it of one class."""
        return self.holds_classes(folder) or self.is_flat(folder)

    def holds_classes(self, folder: str) -> bool:
        """Whether a folder is a labelled tree of its own: it has folders, or names with several labels."""
        if self.folders.get(folder):
            return True
        labels = {self.labels.get(name) for name in self.files[folder]} - {None}
        return self.is_flat(folder) and len(labels) > 1
