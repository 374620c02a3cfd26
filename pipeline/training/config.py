"""What decides a training, apart from its images."""

from dataclasses import dataclass
from typing import Self

from pipeline.config.networks import NETWORKS
from pipeline.config.params import Params
from pipeline.config.schema import ModelParams, TrainParams
from pipeline.evaluation.objective import Objective
from pipeline.runtime.hardware import FLOAT32


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training.

    Attributes:
        model: the `model` section.
        train: the `train` section; its `schedule`, `epochs` and `learning_rate` apply to the first stage.
        objective: selects the best epoch and drives early stopping.
        seed: of the initial weights, the dropout, the augmentation and the order of the batches.
    """

    model: ModelParams
    train: TrainParams
    objective: Objective
    seed: int

    @classmethod
    def of(cls, params: Params) -> Self:
        """The settings that parameters give."""
        return cls(params.model, params.train, Objective(params.sweep.metric), params.training_seed)

    @property
    def augment(self) -> bool:
        """Whether training images are augmented; `auto` is the network's own default."""
        if self.train.augment == "auto":
            return NETWORKS[self.model.name].augment
        return self.train.augment

    @property
    def dtype_policy(self) -> str:
        """Keras's dtype policy of the training; `auto` that nothing has resolved is float32."""
        return FLOAT32 if self.train.precision == "auto" else self.train.precision
