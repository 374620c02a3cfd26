"""Evaluate a run's model on a split of the dataset that it was trained on.

    mlflow run . -e evaluate -P evaluate.run_id=RUN_ID -P evaluate.split=test

Reads the model of `evaluate.run_id`, else of the newest training or sweep, and prepares that run's dataset
with its seed, so that the splits are the same. Logs metrics `SPLIT/…`, the report's files and every
prediction under `SPLIT/`. Takes about 10 s for 1,600 photos at 64 px, most of it to import TensorFlow.
"""

from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.inference.evaluate import Evaluation


def run(params: Params, prepared: "Prepared | None" = None) -> "Evaluation":
    """Evaluate a model and record its report.

    Args:
        params: The parameters in force.
        prepared: The dataset of the training, if it is prepared already.
    """
    from pipeline.inference import training_data
    from pipeline.tracking import artifacts, catalog, runs

    run_id = _run_id(params.evaluate.run_id)
    model_info = catalog.look_up(catalog.of_run(run_id))
    print(f"evaluating the model of run {run_id}", flush=True)
    trained = runs.params_of(run_id, params)
    split = params.evaluate.split
    prepared = prepared or training_data.prepare_as_trained(run_id, params)
    training_data.warn_if_changed(model_info.data_digest, prepared.digest)
    with importing_tensorflow():  # after `prepare`, which forks
        from pipeline.inference import evaluate
        from pipeline.tracking import models
    with runs.run("evaluate", params, {"step": "evaluate", "evaluated_run_id": run_id}) as own_id:
        artifacts.log_dataset(prepared, trained.data.source, split)
        result = evaluate.evaluate(models.load(model_info.uri), prepared, split)
        evaluate.record(result, prepared, split, f"{split} split", own_id)
    print(result.report.text)
    auc = "" if result.report.roc_auc is None else f", ROC AUC {result.report.roc_auc:.4f}"
    print(f"{split} split: accuracy {result.report.accuracy:.4f}, F1 {result.report.f1:.4f}{auc}")
    return result


def _run_id(run_id: str | None) -> str:
    """The run whose model is evaluated."""
    from pipeline.sweep import selection

    found = selection.select(run_id, "evaluate.run_id", "train", "sweep")
    if found is None:
        raise UserError(
            "there is no training or sweep to evaluate; run `mlflow run . -e train` first, or set "
            "evaluate.run_id"
        )
    return found


def main() -> None:
    """Parse the command line and evaluate."""
    command(run)


if __name__ == "__main__":
    main()
