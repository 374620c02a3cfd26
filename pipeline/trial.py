"""One training, recorded: what `train` does once and a sweep once a cell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline import metrics, report, training
from pipeline.data import splits
from pipeline.data.prepared import Prepared
from pipeline.params import Params
from pipeline.tracking import models, runs


@dataclass(frozen=True)
class Trial:
    """What a recorded training came to.

    Attributes:
        run_id: of its run.
        scores: accuracy, precision, recall, f1, … of the best epoch on the validation split.
        val_loss: of the best epoch, in nats.
        best_epoch: from 1.
        diverged: its loss was not finite, or it predicts one class for every picture.
    """

    run_id: str
    scores: dict[str, float]
    val_loss: float
    best_epoch: int
    diverged: bool


def run(
    params: Params,
    prepared: Prepared,
    name: str,
    tags: Mapping[str, str],
    on_epoch: Callable[[int, Mapping[str, float]], None] = lambda epoch, values: None,
) -> Trial:
    """Train with `params` and record all of it in a run: metrics, report, figures, dataset and model.

    Args:
        params: those in force, a cell's values among them.
        prepared: the pictures.
        name: of the run, and the title of its figures.
        tags: of the run, from its start.
        on_epoch: called at each epoch's end, after its metrics are logged.
    """

    def log_epoch(epoch: int, values: Mapping[str, float]) -> None:
        runs.log_metrics(values, step=epoch)
        on_epoch(epoch, values)

    with runs.run(name, params, tags) as run_id:
        runs.log_dataset(prepared, params.data.source)
        trained = training.train(
            params.model,
            params.train,
            examples(prepared, splits.TRAIN),
            examples(prepared, splits.VALIDATION),
            len(prepared.classes),
            params.seed,
            log_epoch,
        )
        trial = _recorded(run_id, trained, prepared, name)
    return trial


def examples(prepared: Prepared, split: str) -> training.Examples:
    """The pictures of a split, as training and prediction take them."""
    return training.Examples(prepared.images, prepared.labels, prepared.indices(split))


def _recorded(run_id: str, trained: training.Trained, prepared: Prepared, name: str) -> Trial:
    validation = examples(prepared, splits.VALIDATION)
    labels = validation.labels[validation.indices]
    names = [prepared.names[row] for row in validation.indices]
    result = metrics.report(labels, trained.probabilities, prepared.classes)
    diverged = metrics.diverged(trained.history["loss"], trained.probabilities)
    runs.set_tags({"best_epoch": str(trained.best_epoch)} | ({"diverged": "true"} if diverged else {}))
    files = report.classification(result, names, labels, trained.probabilities, name)
    files |= report.learning_curves(trained.history, trained.best_epoch, name)
    runs.log_files(files, "report")
    models.log(trained.model, prepared, {f"report/{key}": value for key, value in result.scores().items()})
    val_loss = trained.history["val_loss"][trained.best_epoch - 1]
    return Trial(run_id, result.scores(), val_loss, trained.best_epoch, diverged)
