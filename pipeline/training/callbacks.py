"""Keras callbacks of one job each, around the state of a training that they share."""

import math
from collections.abc import Callable, Mapping

import keras
import numpy as np

from pipeline.config.schema import ScheduleParams
from pipeline.evaluation import metrics
from pipeline.evaluation.objective import Objective
from pipeline.training.batches import LabelledImages
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.graph_cache import TracedModel

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")

# Called at the end of each epoch with its number, from 1, its `logged_metrics`, and a function that makes the
# checkpoint to resume from. No further epoch is trained if it returns True.
OnEpoch = Callable[[int, Mapping[str, float], Callable[[], Checkpoint]], bool | None]


def logged_metrics(objective: Objective) -> list[str]:
    """The metrics of each epoch: `METRICS`, and the objective's own if it is none of them.

    >>> logged_metrics(Objective("macro_f1"))
    ['loss', 'accuracy', 'val_loss', 'val_accuracy', 'learning_rate', 'val_macro_f1']
    """
    return [*dict.fromkeys([*METRICS, objective.key])]


def learning_rate(initial: float, schedule: ScheduleParams, epoch: int) -> float:
    """The learning rate of an epoch, from 1: constant up to `start`, then x `factor` every `every` epochs.

    >>> [learning_rate(0.1, ScheduleParams(start=2, every=2, factor=0.5), epoch) for epoch in (2, 3, 4, 5)]
    [0.1, 0.05, 0.05, 0.025]
    """
    if epoch <= schedule.start:
        return initial
    return initial * schedule.factor ** (1 + (epoch - schedule.start - 1) // schedule.every)


class TrainState:
    """The progress of a training through its stages.

    Attributes:
        objective: selects the best epoch.
        history: each of `logged_metrics`, one value per epoch from 1.
        best_epoch: from 1; 0 before the first epoch.
        best_weights: of the best epoch, of the current stage's part of the network.
        probabilities: (k, num_classes) float32, of the validation images at the best epoch.
        latest_probabilities: the same at the last epoch.
        stage: index of the current stage, from 0.
        stage_start: number of epochs before the current stage.
        stopped: whether `OnEpoch` has ended the training.
    """

    def __init__(self, objective: Objective):
        self.objective = objective
        self.history: dict[str, list[float]] = {name: [] for name in logged_metrics(objective)}
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] = []
        self.probabilities = self.latest_probabilities = np.empty((0, 0), np.float32)
        self.stage = self.stage_start = 0
        self.stopped = False

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.history["loss"])

    @property
    def diverged(self) -> bool:
        """Whether the last training loss is not finite: the weights cannot recover."""
        return self.epochs > 0 and not math.isfinite(self.history["loss"][-1])

    def start_stage(
        self, stage: int, network: keras.Model, traced: TracedModel, checkpoint: Checkpoint | None
    ) -> None:
        """Start a stage, or resume it from a checkpoint.

        Args:
            stage: its index.
            network: the part of the whole network that it fits.
            traced: the traced copy of it.
            checkpoint: of this stage; None: the stage starts.
        """
        self.stage, self.stage_start = stage, self.epochs
        self._network, self._traced = network, traced
        if checkpoint is None:
            return
        model = traced.training_model
        for variables, values in (
            (model.variables, checkpoint.variables),
            (model.optimizer.variables, checkpoint.optimizer),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.history = {name: list(values) for name, values in checkpoint.history.items()}
        self.best_epoch, self.best_weights = checkpoint.best_epoch, checkpoint.best_weights
        self.probabilities, self.stage_start = checkpoint.probabilities, checkpoint.stage_start

    def restore_best_weights(self, model: keras.Model) -> None:
        """Give the whole network, of which the current stage's is a part, the weights of the best epoch."""
        self._network.set_weights(self.best_weights)
        self._network, self.best_weights = model, model.get_weights()

    def checkpoint(self) -> Checkpoint:
        """The state at the end of the last epoch."""
        model = self._traced.training_model
        return Checkpoint(
            variables=[keras.ops.convert_to_numpy(variable) for variable in model.variables],
            optimizer=[keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables],
            history={name: list(values) for name, values in self.history.items()},
            best_epoch=self.best_epoch,
            best_weights=self.best_weights,
            probabilities=self.probabilities,
            stage=self.stage,
            stage_start=self.stage_start,
            objective=self.objective.name,
        )


class _StateCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no annotations
    def __init__(self, state: TrainState):
        super().__init__()
        self.state = state


def learning_rate_scheduler(
    state: TrainState, initial: float, schedule: ScheduleParams
) -> keras.callbacks.LearningRateScheduler:
    """A callback that sets the learning rate of each epoch; the schedule counts from the stage's start."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: learning_rate(initial, schedule, epoch + 1 - state.stage_start)
    )


class MeasureEpoch(_StateCallback):
    """Predicts the validation split after each epoch and adds the epoch's metrics to the history.

    It replaces `validation_data`, which only evaluates: reports need the probabilities of the best epoch, and
    they cost no second pass and no second graph this way.
    """

    def __init__(self, state: TrainState, traced: TracedModel, validation: LabelledImages):
        super().__init__(state)
        self.traced, self.validation = traced, validation

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Append a value to each list of the history."""
        self.traced.sync_weights()
        probabilities = self.state.latest_probabilities = self.traced.predict(self.validation)
        values = logs | {
            f"val_{name}": metrics.score(name, self.validation.split_labels, probabilities)
            for name in {"loss", "accuracy", self.state.objective.name}
        }
        for name, history in self.state.history.items():
            history.append(float(values[name]))


class BestWeights(_StateCallback):
    """Keeps the weights and the probabilities of the best epoch by the objective, among equals by loss."""

    def __init__(self, state: TrainState, network: keras.Model):
        super().__init__(state)
        self.network = network

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Replace the best epoch if this one is better."""
        state = self.state
        if state.best_epoch == 0 or self._cost(epoch) < self._cost(state.best_epoch - 1):
            state.best_epoch, state.best_weights = epoch + 1, self.network.get_weights()
            state.probabilities = state.latest_probabilities

    def _cost(self, index: int) -> tuple[float, float]:
        """The cost of an epoch, from 0, and its loss; lower is better."""
        objective, history = self.state.objective, self.state.history
        loss = history["val_loss"][index]
        return objective.cost(history[objective.key][index]), loss if math.isfinite(loss) else math.inf


class ReportEpoch(_StateCallback):
    """Passes each epoch's metrics and checkpoint on, and stops the training on request.

    Args:
        state: of the training.
        on_epoch: see `OnEpoch`.
    """

    def __init__(self, state: TrainState, on_epoch: OnEpoch):
        super().__init__(state)
        self.on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Call `on_epoch`."""
        values = {name: history[-1] for name, history in self.state.history.items()}
        self.state.stopped = bool(self.on_epoch(epoch + 1, values, self.state.checkpoint))
        if self.state.stopped:
            self.model.stop_training = True


class EarlyStopping(_StateCallback):
    """Ends a stage that has diverged, or whose objective has not improved for `patience` epochs.

    Args:
        state: of the training.
        patience: epochs; None: only a divergence ends the stage.
    """

    def __init__(self, state: TrainState, patience: int | None):
        super().__init__(state)
        self.patience = patience

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Stop the fit if the stage ends here."""
        if self.should_stop():
            self.model.stop_training = True

    def should_stop(self) -> bool:
        """Whether the stage ends after the epochs so far, those before a checkpoint included."""
        if self.state.diverged:
            return True
        values = self.state.history[self.state.objective.key][self.state.stage_start :]
        if self.patience is None or not values:
            return False
        return len(values) - 1 - self.state.objective.best(values) >= self.patience
