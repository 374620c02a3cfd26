"""Prepare, train and evaluate in turn, each its own run nested in one.

mlflow run . -P data.source=photos -P train.epochs=12
"""

from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.steps import command, evaluate, prepare, train

if TYPE_CHECKING:
    from pipeline.evaluation import Evaluation


def run(params: Params) -> "Evaluation":
    """Run the three steps in one process, on pictures that are prepared once."""
    from pipeline.tracking import runs

    params.check_files()
    params = train.in_precision(params)
    with runs.run("main", params, {"step": "main"}):
        pictures = prepare.run(params)
        if not len(pictures.indices(params.evaluate.split)):
            raise UserError(
                f"there is no {params.evaluate.split} split to report on after the training: set data.test "
                "above 0, or run `mlflow run . -e train`, which needs none"
            )
        trained = train.run(params, pictures)
        return evaluate.run(params.with_values({"evaluate.run_id": trained.run_id}), pictures)


def main() -> None:
    """Parse the command line and run the three steps."""
    command(run, logs_models=True)


if __name__ == "__main__":
    main()
