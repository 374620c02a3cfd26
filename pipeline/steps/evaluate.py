"""Measure a run's model on a split of the images that it was trained on.

    mlflow run . -e evaluate -P evaluate.run_id=RUN_ID -P evaluate.split=test

Reads the model of `evaluate.run_id`, or of the newest training or sweep; prepares that run's own
images with that run's seed, so that its test split is the one it never saw. Logs metrics `SPLIT/…`, the
report's files and a CSV of every prediction under `SPLIT/`.
"""

from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.runtime.console import warn
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.inference.evaluate import Evaluation


def run(params: Params, prepared: "Prepared | None" = None) -> "Evaluation":
    """Evaluate a model and record it, on the images of its training where none are given."""
    from pipeline.dataset import prepare
    from pipeline.tracking import artifacts, catalog, runs

    run_id = _chosen(params.evaluate.run_id)
    known = catalog.look_up(catalog.of_run(run_id))
    print(f"evaluating the model of run {run_id}", flush=True)
    trained = runs.params_of(run_id, params)
    split = params.evaluate.split
    prepared = prepared or prepare.prepare(trained.data, trained.seed)
    if known.data_digest != prepared.digest:
        warn("the images have changed since the training: some of these may have been trained on")
    with importing_tensorflow():  # which cannot be forked, as `prepare` does
        from pipeline.inference import evaluate
        from pipeline.tracking import models
    with runs.run("evaluate", params, {"step": "evaluate", "evaluated_run_id": run_id}) as own_id:
        artifacts.log_dataset(prepared, trained.data.source, split)
        result = evaluate.evaluate(models.load(known.uri), prepared, split)
        evaluate.record(result, prepared, split, f"{split} split", own_id)
    print(result.report.text)
    auc = "" if result.report.roc_auc is None else f", ROC AUC {result.report.roc_auc:.4f}"
    print(f"{split} split: accuracy {result.report.accuracy:.4f}, F1 {result.report.f1:.4f}{auc}")
    return result


def _chosen(run_id: str | None) -> str:
    """The training whose model is measured."""
    from pipeline.sweep import selection

    chosen = selection.select(run_id, "evaluate.run_id", "train", "sweep")
    if chosen is None:
        raise UserError(
            "there is no training or sweep to evaluate; run `mlflow run . -e train` first, or set "
            "evaluate.run_id"
        )
    return chosen


def main() -> None:
    """Parse the command line and evaluate."""
    command(run)


if __name__ == "__main__":
    main()
