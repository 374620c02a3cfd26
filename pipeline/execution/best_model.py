"""A sweep's best model on a worker: measure it on the test split, and collect its exhibits.

Like `worker`, this module imports nothing heavy: a Dask scheduler has to import it too.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.pages.sweep_data import Exhibits


def evaluate(
    sweep_run_id: str, winner_run_id: str, name: str, store: str, images: Mapping[str, Any], token: str
) -> dict[str, float]:
    """Measure a sweep's best model on the test split, and record that in the sweep's run.

    Args:
        sweep_run_id: of the sweep's run.
        winner_run_id: of the best cell's run.
        name: the best cell's.
        store: MLflow's tracking URI.
        images: as in `Task`.
        token: the driver's.

    Returns:
        Its scores on the test split.

    Raises:
        TakenOver: another driver has the sweep by now; nothing is recorded.
    """
    from pipeline.tracking import store as tracking_store

    tracking_store.use(store)
    from pipeline.runtime.logs import importing_tensorflow

    with importing_tensorflow():
        from pipeline.execution import dataset_fetch, lock
        from pipeline.inference import evaluate as evaluation
        from pipeline.runtime.errors import TakenOver
        from pipeline.sources import split_names
        from pipeline.tracking import catalog, models

        prepared = dataset_fetch.open_dataset(images)
    model = models.load(catalog.of_run(winner_run_id))
    result = evaluation.evaluate(model, prepared, split_names.TEST)
    if lock.token_of(sweep_run_id) != token:
        raise TakenOver("another driver has taken the sweep over while the test split was measured")
    evaluation.record(result, prepared, split_names.TEST, f"{name}, test split", sweep_run_id)
    return result.report.scores()


def exhibits(winner_run_id: str, store: str, images: Mapping[str, Any]) -> "Exhibits":
    """What a sweep's best model shows of its validation images."""
    from pipeline.tracking import store as tracking_store

    tracking_store.use(store)
    from pipeline.runtime.logs import importing_tensorflow

    with importing_tensorflow():
        from pipeline.execution import dataset_fetch
        from pipeline.inference import error_analysis

    return error_analysis.of(winner_run_id, dataset_fetch.open_dataset(images))
