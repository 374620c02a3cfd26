"""Where a training stands after an epoch, as arrays and as a file's content."""

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Self

import numpy as np

_LISTS = ("variables", "optimizer", "best_weights")


@dataclass(frozen=True)
class Checkpoint:
    """All that the epochs to come depend on.

    The learning rate and the order of the batches are not here: they follow from the epoch's number and the
    seed.

    Attributes:
        variables: of the network that is fitted: weights, and the states of dropout and augmentation.
        optimizer: its variables: the momenta, the number of steps, the learning rate.
        history: each of `training.METRICS`, one value an epoch from 1.
        best_epoch: the best one so far, from 1.
        best_weights: of that epoch.
        probabilities: (k, num_classes) float32, of the validation images at that epoch.
        stage: which one of the training, from 0; `variables` are of the part that it fits.
        stage_start: the epochs that were done when it began.
        objective: the name of the one that chose the best epoch.
    """

    variables: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: dict[str, list[float]]
    best_epoch: int
    best_weights: list[np.ndarray]
    probabilities: np.ndarray
    stage: int = 0
    stage_start: int = 0
    objective: str = "accuracy"

    @property
    def epoch(self) -> int:
        """The last epoch that is done, from 1."""
        return len(self.history["loss"])

    def dump(self) -> bytes:
        """The content of a file: NumPy's .npz, whose parts carry check sums."""
        arrays = {"probabilities": self.probabilities}
        for name in _LISTS:
            arrays |= {f"{name}.{number}": array for number, array in enumerate(getattr(self, name))}
        about = {
            name: getattr(self, name)
            for name in ("best_epoch", "history", "stage", "stage_start", "objective")
        }
        file = io.BytesIO()
        np.savez(file, about=np.array(json.dumps(about)), **arrays)
        return file.getvalue()

    @classmethod
    def load(cls, content: bytes) -> Self:
        """The checkpoint that was dumped.

        Raises:
            ValueError: the content is cut off or damaged.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = dict(file)
            about = json.loads(str(arrays["about"]))
            lists = {name: [arrays[f"{name}.{n}"] for n in range(_count(name, arrays))] for name in _LISTS}
            return cls(**about, **lists, probabilities=arrays["probabilities"])
        except (zipfile.BadZipFile, EOFError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no checkpoint: {error}") from error


def _count(name: str, arrays: dict[str, np.ndarray]) -> int:
    return sum(key.startswith(f"{name}.") for key in arrays)
