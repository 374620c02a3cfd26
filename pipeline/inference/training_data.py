"""The images that a model was trained on, prepared again with the splits of its training."""

from pipeline.config.params import Params
from pipeline.dataset import prepare
from pipeline.dataset.prepare import Prepared
from pipeline.runtime.console import warn
from pipeline.tracking import runs


def prepare_as_trained(run_id: str, params: Params, image_size: int | None = None) -> Prepared:
    """Prepare the images of a training with its seed, and so its splits.

    Args:
        run_id: Of the training.
        params: Those in force; they say where prepared images are kept.
        image_size: In px; None: as in the training.
    """
    trained = runs.params_of(run_id, params)
    if image_size is not None:
        trained = trained.with_values({"data.image_size": image_size})
    return prepare.prepare(trained.data, trained.seed)


def warn_if_changed(trained_digest: str, digest: str) -> None:
    """Warn if the dataset is not the one that a model was trained on: its splits may overlap."""
    if trained_digest != digest:
        warn(
            "possible train/test leakage: the dataset changed since training "
            f"(digest {trained_digest[:8]} -> {digest[:8]})"
        )
