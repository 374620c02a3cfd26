"""What only a sweep's best model can show: its surest mistakes and its least certain pictures, with heatmaps.

Imports TensorFlow, so it runs where cells run.
"""

import numpy as np

from pipeline import heatmaps, report, saliency
from pipeline.data import splits
from pipeline.data.prepared import Prepared
from pipeline.errors import UserError
from pipeline.pages import thumbnails
from pipeline.pages.findings import Exhibit, Exhibits
from pipeline.predictions import Predictions
from pipeline.tracking import artifacts, models

COUNT = 8  # of each kind


def of(run_id: str, prepared: Prepared | None, missing: str = "") -> Exhibits:
    """The exhibits of a run's model, on the validation pictures that it was measured on.

    Args:
        run_id: of a finished training.
        prepared: the pictures; None where they are not there.
        missing: why they are not there.
    """
    found = report.read_predictions(artifacts.read(run_id, f"report/{report.PREDICTIONS}"))
    wrong = found.mistakes()
    mistakes, uncertain, method = [], [], ""
    if not missing:
        missing = _unfit(found, prepared)
    if not missing:
        chosen = wrong[:COUNT], found.least_certain()[:COUNT]
        rows = np.concatenate(chosen)
        jpegs, method = _drawn(run_id, np.asarray(prepared.images[prepared.indices(splits.VALIDATION)[rows]]))
        exhibits = [
            Exhibit(
                jpeg=content,
                name=found.names[row],
                label=found.classes[found.labels[row]],
                predicted=found.classes[found.answers[row]],
                probability=float(found.top_probabilities[row, 0]),
            )
            for row, content in zip(rows, jpegs, strict=True)
        ]
        mistakes, uncertain = exhibits[: len(chosen[0])], exhibits[len(chosen[0]) :]
    python, requirements = models.needs(models.of_run(run_id))
    return Exhibits(
        mistakes, uncertain, len(wrong), len(found.labels), missing, method, python, tuple(requirements)
    )


def _unfit(found: Predictions, prepared: Prepared) -> str:
    """Why there is nothing to show; empty where there is."""
    if not found.are_finite:
        return "The best cell diverged: its answers are no numbers."
    if len(set(found.answers.tolist())) == 1:
        return "The best cell answers the same for every picture: there is nothing to see in single ones."
    names = [prepared.names[row] for row in prepared.indices(splits.VALIDATION)]
    if list(found.names) != names:
        return "The pictures have other names since the sweep."
    return ""


def _drawn(run_id: str, images: np.ndarray) -> tuple[list[bytes], str]:
    """(n, size, size, 3) pictures beside their heatmaps, and the maps' method; alone where there are none."""
    network = models.load(models.of_run(run_id)).network
    try:
        explained = saliency.explain(network, images)
    except UserError:  # a network without a layer that has a height and a width
        return [thumbnails.jpeg(heatmaps.fit(image)) for image in images], ""
    pairs = zip(images, explained.maps, strict=True)
    return [thumbnails.jpeg(heatmaps.with_overlay(image, heat)) for image, heat in pairs], explained.method
