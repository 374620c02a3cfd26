"""Prepare, train and evaluate in turn, each in a run nested in one parent run.

    mlflow run . -P data.source=photos -P train.epochs=12

Reads and writes what the three steps do. Takes their time, and imports TensorFlow once.
"""

from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.steps import command, evaluate, prepare, train

if TYPE_CHECKING:
    from pipeline.inference.evaluate import Evaluation


def run(params: Params) -> "Evaluation":
    """Run the three steps in one process; returns the evaluation of `evaluate.split`."""
    from pipeline.tracking import runs
    from pipeline.training import mixed_precision

    params.check_files()
    params = mixed_precision.resolve_and_print(params)
    with runs.run("main", params, {"step": "main"}):
        prepared = prepare.run(params)
        if not len(prepared.indices(params.evaluate.split)):
            raise UserError(
                f"there is no {params.evaluate.split} split to evaluate after the training: set data.test "
                "above 0, or run `mlflow run . -e train`"
            )
        trained = train.run(params, prepared)
        return evaluate.run(params.with_values({"evaluate.run_id": trained.run_id}), prepared)


def main() -> None:
    """Parse the command line and run the three steps."""
    command(run, logs_models=True)


if __name__ == "__main__":
    main()
