"""A model from the store, measured on a split of prepared pictures."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pipeline import metrics, report, trial
from pipeline.console import few
from pipeline.data import pictures
from pipeline.data.prepared import Prepared
from pipeline.errors import UserError
from pipeline.examples import predict
from pipeline.tracking import artifacts, models, runs


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions on a split: (k,) labels, (k, num_classes) probabilities, and their report."""

    report: metrics.Report
    labels: np.ndarray
    probabilities: np.ndarray
    model_id: str | None


def evaluate(model: models.Loaded, prepared: Prepared, split: str) -> Evaluation:
    """Predict every picture of a split; a model of another size gets the prepared pictures resized.

    Raises:
        UserError: the split has no pictures, or the model tells other classes apart.
    """
    examples = trial.examples(prepared, split)
    if not len(examples.indices):
        raise UserError(
            f"the {split} split has no pictures: set data.{split} above 0, or another evaluate.split"
        )
    if model.classes != prepared.classes:
        raise UserError(
            f"the model tells {few(model.classes)} apart, the pictures are of "
            f"{few(prepared.classes)}: name the data.source that it was trained on, or another model"
        )
    size = model.network.input_shape[1]
    if size != prepared.image_size:
        examples = replace(examples, images=_Resized(prepared.images, size))
    probabilities = predict(model.network, examples)
    labels = examples.labels[examples.indices]
    result = metrics.report(labels, probabilities, prepared.classes)
    return Evaluation(result, labels, probabilities, model.model_id)


class _Resized:
    """Prepared pictures at another size, resized when they are read."""

    def __init__(self, images: np.ndarray, size: int):
        self.images, self.size = images, size

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([pictures.resize(Image.fromarray(image), self.size) for image in self.images[rows]])


def record(evaluation: Evaluation, prepared: Prepared, split: str, title: str, run_id: str) -> None:
    """Log an evaluation: metrics `SPLIT/…` to a run and to the model, and the report's files to the run."""
    result = evaluation.report
    names = [prepared.names[row] for row in prepared.indices(split)]
    scores = {f"{split}/{key}": value for key, value in result.scores().items()}
    artifacts.log_scores(runs.get(run_id), evaluation.model_id, split, scores)
    files = report.classification(result, names, evaluation.labels, evaluation.probabilities, title)
    files |= report.roc_curve(evaluation.labels, evaluation.probabilities, prepared.classes)
    runs.log_files(files, split, run_id)
