"""Which training a command uses: the run that a parameter names, or else the newest.

The newest is the one started last, in any state. If it is unfinished, no older one is used in its place: the
error names its run and the parameter to set.
"""

from pipeline.runtime.console import counted, warn
from pipeline.runtime.errors import UserError
from pipeline.sweep import ranking as rankings
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import catalog, runs, sweep_runs
from pipeline.tracking.sweep_runs import Sweep

# Steps whose finished runs have a model.
_WITH_A_MODEL = ("train", sweep_runs.CELL, sweep_runs.FINALIST)


def select(run_id: str | None, key: str, *steps: str) -> str | None:
    """Select the run of a finished training. Of a sweep it is the best cell's; warns of what the sweep lacks.

    Args:
        run_id: The run that a parameter names: of a training, of a sweep's cell, or of a sweep in any state.
            None: the training or sweep that was started last.
        key: The name of the parameter, for errors.
        *steps: The steps to search if no run is named: `train`, `sweep`, or both.

    Returns:
        The run's id; None if no run is named and none exists.

    Raises:
        UserError: The run does not exist, was deleted, or has no finished training; or the newest training
            or sweep is unfinished.
    """
    return _named(run_id, key) if run_id else _newest(key, steps)


def has_ended(sweep: Sweep) -> bool:
    """Whether a sweep has ended, with every cell finished or failed."""
    return sweep.complete and sweep.status != "RUNNING"


def _named(run_id: str, key: str) -> str:
    run = runs.get(run_id)
    if sweep_run_id := run.data.tags.get("resumes"):
        run = runs.get(sweep_run_id)
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"{key}: run {run_id} was deleted; set another one, or restore it")
    step = run.data.tags.get("step")
    if step == "sweep":
        sweep = Sweep.from_run(run)
        return _winner(sweep, rankings.of(sweep), key)
    if step in _WITH_A_MODEL and run.info.status == "FINISHED":
        return run_id
    what = f"is not finished (status {run.info.status})" if step in _WITH_A_MODEL else "has no model"
    raise UserError(
        f"{key}: run {run_id} ({run.info.run_name}) {what}; allowed: a finished run of `train`, a finished "
        "cell of a sweep, or a sweep"
    )


def _newest(key: str, steps: tuple[str, ...]) -> str | None:
    sweep = sweep_runs.latest_sweep() if "sweep" in steps else None
    training = runs.newest("train") if "train" in steps else None
    if training and (sweep is None or training.info.start_time > sweep.started):
        if training.info.status == "FINISHED":
            return str(training.info.run_id)
        raise UserError(
            f"the newest training, run {training.info.run_id}, is not finished (status "
            f"{training.info.status}); train again, or set {key} to the run of another"
        )
    if sweep is None:
        return None
    ranked = rankings.of(sweep)
    if has_ended(sweep):
        return _winner(sweep, ranked, key)
    raise UserError(
        f"the newest sweep, run {sweep.run_id}, {_unfinished(sweep, ranked)}; {_way_out(sweep, ranked, key)}"
    )


def _winner(sweep: Sweep, ranked: Ranking, key: str) -> str:
    if ranked.winner is None:
        raise UserError(
            f"the sweep {sweep.run_id} has no finished cell; rerun it to resume, or set {key} to another run"
        )
    if not has_ended(sweep):
        warn(f"the sweep {sweep.run_id} {_unfinished(sweep, ranked)}: using its best cell so far")
    if ranked.failed:
        warn(f"{counted(len(ranked.failed), 'cell')} of the sweep {sweep.run_id} failed")
    return ranked.winner.run_id


def _unfinished(sweep: Sweep, ranked: Ranking) -> str:
    """The state of an unfinished sweep in words."""
    state = "is running or was killed" if sweep.status == "RUNNING" else "is unfinished"
    total = f" of {int(sweep.metrics['cells/total']):,}" if "cells/total" in sweep.metrics else ""
    done, wanted = ranked.repeats
    again = f", {done:,} of {wanted:,} repeats of its finalists" if wanted else ""
    return f"{state} ({len(ranked.cells):,}{total} cells finished{again})"


def _way_out(sweep: Sweep, ranked: Ranking, key: str) -> str:
    """What a user can do about an unfinished newest sweep."""
    resume = "rerun the sweep to resume it"
    if ranked.winner is None:
        return f"{resume}, or set {key} to another run"
    value = catalog.of_run(ranked.winner.run_id) if key == "export.model" else sweep.run_id
    return f"{resume}, or set {key}={value} to use its best finished cell"
