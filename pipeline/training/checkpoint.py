"""The state of a training after an epoch, as arrays and as the content of a file."""

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

_ARRAY_LISTS = ("variables", "optimizer", "best_weights")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the following epochs depend on.

    The learning rate and the order of the batches are not stored: both follow from the number of the epoch
    and the seed.

    Attributes:
        variables: of the training model: weights, and the states of dropout and augmentation.
        optimizer: its variables: momenta, number of steps, learning rate.
        history: each of `callbacks.logged_metrics`, one value per epoch from 1.
        best_epoch: the best epoch so far, from 1.
        best_weights: of the best epoch.
        probabilities: (k, num_classes) float32, of the validation images at the best epoch.
        stage: index of the current stage, from 0; `variables` are of the part of the network that it fits.
        stage_start: number of epochs before the current stage.
        objective: name of the objective that selected the best epoch.
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
        """The last finished epoch, from 1."""
        return len(self.history["loss"])

    def dump(self) -> bytes:
        """The content of a file: NumPy's .npz, whose parts carry checksums."""
        about = {
            name: getattr(self, name)
            for name in ("best_epoch", "history", "stage", "stage_start", "objective")
        }
        arrays: dict[str, Any] = {"probabilities": self.probabilities, "about": np.array(json.dumps(about))}
        for name in _ARRAY_LISTS:
            arrays |= {f"{name}.{index}": array for index, array in enumerate(getattr(self, name))}
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def load(cls, content: bytes) -> Self:
        """Read a checkpoint from the content that `dump` returned.

        Raises:
            ValueError: the content is truncated or damaged.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = dict(file)
            fields: dict[str, Any] = json.loads(str(arrays["about"]))
            for name in _ARRAY_LISTS:
                count = sum(key.startswith(f"{name}.") for key in arrays)
                fields[name] = [arrays[f"{name}.{index}"] for index in range(count)]
            return cls(**fields, probabilities=arrays["probabilities"])
        except (zipfile.BadZipFile, EOFError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a valid checkpoint: {error}") from error
