"""Train one network with the parameters in force.

    mlflow run . -e train -P train.epochs=12

Prepares the pictures where they are not; logs a run with metrics, report, figures and the model of the best
epoch. About 400 pictures a second on two cores at 64 px, without a GPU.
"""

from typing import TYPE_CHECKING

from pipeline.console import warn
from pipeline.params import Params
from pipeline.quiet import importing_tensorflow
from pipeline.steps import command

if TYPE_CHECKING:
    from pipeline.data.prepared import Prepared
    from pipeline.trial import Trial


def run(params: Params, pictures: "Prepared | None" = None) -> "Trial":
    """Train one network and record it, on pictures that are prepared first where none are given."""
    from pipeline.data import prepared

    params.check_files()
    params = in_precision(params)
    pictures = pictures or prepared.prepare(params.data, params.seed)
    with importing_tensorflow():
        from pipeline import trial

    def show(epoch: int, values) -> None:
        print(
            f"epoch {epoch}/{params.epochs}: "
            f"loss {values['loss']:.4f}, accuracy {values['accuracy']:.4f}, "
            f"validation loss {values['val_loss']:.4f}, validation accuracy {values['val_accuracy']:.4f}",
            flush=True,
        )

    result = trial.run(params, pictures, "train", {"step": "train"}, show)
    print(
        f"best epoch {result.best_epoch}: validation accuracy {result.scores['accuracy']:.4f}, "
        f"F1 {result.scores['f1']:.4f}; run {result.run_id}"
    )
    if result.diverged:
        warn("this training diverged: try a lower train.learning_rate")
    return result


def in_precision(params: Params) -> Params:
    """The parameters with the precision that is computed in; told, where it was left to the machine."""
    from pipeline import precision

    decided, because = precision.decided(params)
    if decided is not params:
        print(f"precision: {decided.train.precision} ({because})", flush=True)
    return decided


def main() -> None:
    """Parse the command line and train."""
    command(run, logs_models=True)


if __name__ == "__main__":
    main()
