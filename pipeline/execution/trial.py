"""One training, recorded: by `train` once, by a sweep once per cell."""

from collections.abc import Callable, Mapping, Sequence

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.evaluation import metrics
from pipeline.evaluation.objective import Objective
from pipeline.inference import report
from pipeline.sources import split_names
from pipeline.tracking import artifacts, models, runs
from pipeline.tracking.checkpoints import Checkpoints
from pipeline.tracking.trials import REPORT, Trial
from pipeline.training import train
from pipeline.training.batches import LabelledImages, TrainingData
from pipeline.training.callbacks import logged_metrics
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.config import TrainConfig


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
        prepared: the images.
        name: of the run, and the title of its figures.
        tags: of the run, from its start.
        on_epoch: called at each epoch's end, after its metrics are logged.
    """
    with runs.run(name, params, tags) as run_id:
        _record(run_id, params, prepared, name, on_epoch)
    return Trial.from_run(runs.get(run_id))


def resume(
    run_id: str,
    params: Params,
    prepared: Prepared,
    name: str,
    checkpoints: Checkpoints,
    on_epoch: Callable[[int, Mapping[str, float]], bool | None],
    check: Callable[[], object],
) -> Trial:
    """Train and record as `run` does, in a run that is there, from its newest checkpoint where it has one.

    However often it is broken off, and wherever, nothing is recorded twice, and the numbers are the same.

    Args:
        run_id: of the run.
        params: as in `run`.
        prepared: as in `run`.
        name: as in `run`.
        checkpoints: the run's.
        on_epoch: called at each epoch's end, after its metrics are logged and its checkpoint is kept; where
            it returns True, the training ends there and is recorded as pruned.
        check: called before an epoch is recorded, and before the result is; raises where that may not be.
    """
    found = runs.get(run_id)
    if found.info.status != "FINISHED":
        pruned = found.data.tags.get("pruned") == "true"
        if "reason" in found.data.tags:  # it failed before
            runs.delete_tag("reason", run_id)
        with runs.reopened(run_id, params):
            _record(run_id, params, prepared, name, on_epoch, checkpoints, check, pruned)
        checkpoints.clear()
        found = runs.get(run_id)
    return Trial.from_run(found)


def _record(
    run_id: str,
    params: Params,
    prepared: Prepared,
    name: str,
    on_epoch: Callable[[int, Mapping[str, float]], bool | None],
    checkpoints: Checkpoints | None = None,
    check: Callable[[], object] = lambda: None,
    pruned: bool = False,
) -> None:
    """Train, and log what comes of it to the open run, but for what it has already.

    `pruned` tells that the training was ended before, and was broken off only when it was recorded.
    """
    objective = Objective(params.sweep.metric)
    newest = checkpoints.newest(objective.name) if checkpoints else None
    names = logged_metrics(objective)
    missing = _log_missing(run_id, newest, names) if checkpoints else lambda step: names

    def log_epoch(epoch: int, values: Mapping[str, float], checkpoint: Callable[[], Checkpoint]) -> bool:
        nonlocal pruned
        check()
        runs.log_metrics({key: values[key] for key in missing(epoch)}, step=epoch)
        if checkpoints:
            checkpoints.save(checkpoint())
        pruned = bool(on_epoch(epoch, values))
        if pruned:
            runs.set_tags({"pruned": "true"})
        return pruned

    artifacts.log_dataset(prepared, params.data.source, split_names.TRAIN, split_names.VALIDATION)
    trained = train.train(
        TrainConfig.of(params),
        TrainingData.of(prepared),
        log_epoch,
        newest,
        until=newest.epoch if pruned and newest else None,
    )
    check()
    _log_result(run_id, trained, prepared, name)


def _log_missing(run_id: str, newest: Checkpoint | None, names: Sequence[str]) -> Callable[[int], list[str]]:
    """Log what a run lacks of its checkpoint's epochs; returns which metrics it lacks of a later epoch."""
    logged = {name: runs.logged_steps(run_id, name) for name in names}

    def missing(epoch: int) -> list[str]:
        return [name for name in names if epoch not in logged[name]]

    if newest:
        for epoch in range(1, newest.epoch + 1):
            if lacking := missing(epoch):
                runs.log_metrics({name: newest.history[name][epoch - 1] for name in lacking}, step=epoch)
    return missing


def _log_result(run_id: str, trained: train.Trained, prepared: Prepared, name: str) -> None:
    validation = LabelledImages.of(prepared, split_names.VALIDATION)
    labels = validation.split_labels
    names = [prepared.names[row] for row in validation.indices]
    result = metrics.report(labels, trained.probabilities, prepared.classes)
    tags = {
        "best_epoch": str(trained.best_epoch),
        "best_val_loss": repr(trained.history["val_loss"][trained.best_epoch - 1]),
        "epochs": str(len(trained.history["loss"])),
    }
    if metrics.diverged(trained.history["loss"], trained.probabilities):
        tags["diverged"] = "true"
    runs.set_tags(tags)
    files = report.classification(result, names, labels, trained.probabilities, name)
    files |= report.learning_curves(trained.history, trained.best_epoch, name)
    artifacts.log_files(files, "report")
    models.log(
        run_id, trained.model, prepared, {f"{REPORT}{key}": value for key, value in result.scores().items()}
    )
