"""A model from the store, measured on a split of prepared images."""

from dataclasses import dataclass

import numpy as np

from pipeline.dataset.prepare import Prepared
from pipeline.evaluation import metrics
from pipeline.inference import report
from pipeline.runtime.errors import UserError
from pipeline.tracking import artifacts, catalog, models, runs
from pipeline.training.batches import LabelledImages, predict


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions on a split: (k,) labels, (k, num_classes) probabilities, and their report."""

    report: metrics.Report
    labels: np.ndarray
    probabilities: np.ndarray
    model_id: str | None


def evaluate(model: models.Loaded, prepared: Prepared, split: str) -> Evaluation:
    """Predict every image of a split.

    Args:
        model: the model.
        prepared: images of the size that it takes.
        split: `train`, `validation` or `test`.

    Raises:
        UserError: the split has no images, or its classes are not the model's.
        ValueError: the images have another size.
    """
    data = LabelledImages.of(prepared, split)
    if not len(data.indices):
        raise UserError(
            f"the {split} split has no images: set data.{split} above 0, or another evaluate.split"
        )
    if model.classes != prepared.classes:
        raise UserError(
            f"{catalog.class_mismatch(model.classes, prepared.classes)}; set data.source to the images that "
            "the model was trained on, or name another model"
        )
    if (size := model.network.input_shape[1]) != prepared.image_size:
        raise ValueError(f"the model takes images of {size} px, these have {prepared.image_size} px")
    probabilities = predict(model.network, data)
    labels = data.split_labels
    result = metrics.report(labels, probabilities, prepared.classes)
    return Evaluation(result, labels, probabilities, model.model_id)


def record(evaluation: Evaluation, prepared: Prepared, split: str, title: str, run_id: str) -> None:
    """Log an evaluation: metrics `SPLIT/…` to a run and to the model, and the report's files to the run."""
    result = evaluation.report
    names = [prepared.names[row] for row in prepared.indices(split)]
    scores = {f"{split}/{key}": value for key, value in result.scores().items()}
    artifacts.log_scores(runs.get(run_id), evaluation.model_id, split, scores)
    files = report.classification(result, names, evaluation.labels, evaluation.probabilities, title)
    files |= report.roc_curve(evaluation.labels, evaluation.probabilities, prepared.classes)
    artifacts.log_files(files, split, run_id)
