"""The most confident errors and the least certain images of a sweep's best model, with heatmaps.

Imports TensorFlow, so it runs where cells run.
"""

import numpy as np

from pipeline.dataset.prepare import Prepared
from pipeline.evaluation.predictions import Predictions
from pipeline.figures import heatmaps
from pipeline.inference import class_activation, report
from pipeline.pages import thumbnails
from pipeline.pages.sweep_data import Exhibit, Exhibits
from pipeline.runtime.errors import UserError
from pipeline.sources import split_names
from pipeline.tracking import catalog, models

COUNT = 8  # of each kind


def of(run_id: str, prepared: Prepared | None, missing: str = "") -> Exhibits:
    """The exhibits of a run's model, on the validation images that it was measured on.

    Args:
        run_id: of a finished training.
        prepared: the images; None if they are missing.
        missing: why they are not there.
    """
    found = report.recorded_predictions(run_id)
    wrong = found.mistakes()
    mistakes, uncertain, method = [], [], ""
    if prepared is not None and not missing:
        missing = _unfit(found, prepared)
    if prepared is not None and not missing:
        chosen = wrong[:COUNT], found.least_certain()[:COUNT]
        rows = np.concatenate(chosen)
        jpegs, method = _drawn(
            run_id, np.asarray(prepared.images[prepared.indices(split_names.VALIDATION)[rows]])
        )
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
    python, requirements = catalog.requirements_of(catalog.of_run(run_id))
    return Exhibits(
        mistakes, uncertain, len(wrong), len(found.labels), missing, method, python, tuple(requirements)
    )


def _unfit(found: Predictions, prepared: Prepared) -> str:
    """Why there is nothing to show; empty if there is."""
    if not found.are_finite:
        return "The best cell diverged: its answers are no numbers."
    if len(set(found.answers.tolist())) == 1:
        return "The best cell answers the same for every image: there is nothing to see in single ones."
    names = [prepared.names[row] for row in prepared.indices(split_names.VALIDATION)]
    if list(found.names) != names:
        return "The images have other names since the sweep."
    return ""


def _drawn(run_id: str, images: np.ndarray) -> tuple[list[bytes], str]:
    """(n, size, size, 3) images beside their heatmaps, and the method; without maps, the images alone."""
    network = models.load(catalog.of_run(run_id)).network
    try:
        explained = class_activation.explain(network, images)
    except UserError:  # a network without a layer that has a height and a width
        return [thumbnails.jpeg(heatmaps.fit(image)) for image in images], ""
    pairs = zip(images, explained.maps, strict=True)
    return [thumbnails.jpeg(heatmaps.with_overlay(image, heat)) for image, heat in pairs], explained.method
