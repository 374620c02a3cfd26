"""Which training a command works with: the one that a parameter names, or else the newest.

The newest is the one that was started last, whatever its state. Where it is unfinished, an older one is not
taken instead: the error names its run, and the parameter that decides.
"""

from pipeline.runtime.console import counted, warn
from pipeline.runtime.errors import UserError
from pipeline.sweep import ranking as rankings
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import catalog, runs, sweep_runs
from pipeline.tracking.sweep_runs import Sweep

_WITH_A_MODEL = (
    "train",
    sweep_runs.CELL,
    sweep_runs.FINALIST,
)  # steps whose runs have a model once they are finished


def select(run_id: str | None, key: str, *steps: str) -> str | None:
    """The run of a finished training; a sweep stands for its best cell, and what it lacks is warned of.

    Args:
        run_id: The run that a parameter names: of a training, of a sweep's cell, or of a sweep in whatever
            state. None: the training or sweep that was started last.
        key: The parameter, for errors.
        *steps: What is taken where the parameter names none: `train`, `sweep`, or both.

    Returns:
        None where none is named and there is none.

    Raises:
        UserError: There is no such run, it was deleted, or it has no finished training; or the newest one is
            unfinished.
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
        raise UserError(f"{key}: run {run_id} was deleted; name another, or restore it")
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
            return training.info.run_id
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
            f"the sweep {sweep.run_id} has no finished cell; rerun it to resume it, or name another run with "
            f"{key}"
        )
    if not has_ended(sweep):
        warn(f"the sweep {sweep.run_id} {_unfinished(sweep, ranked)}: its best cell so far is taken")
    if ranked.failed:
        warn(f"{counted(len(ranked.failed), 'cell')} of the sweep {sweep.run_id} failed")
    return ranked.winner.run_id


def _unfinished(sweep: Sweep, ranked: Ranking) -> str:
    """The state of a sweep that is not settled, in words."""
    state = "is running, or was killed" if sweep.status == "RUNNING" else "is unfinished"
    total = f" of {int(sweep.metrics['cells/total']):,}" if "cells/total" in sweep.metrics else ""
    done, wanted = ranked.repeats
    again = f", {done:,} of {wanted:,} repeats of its finalists" if wanted else ""
    return f"{state} ({len(ranked.cells):,}{total} cells finished{again})"


def _way_out(sweep: Sweep, ranked: Ranking, key: str) -> str:
    """What a user can do where the newest sweep is unfinished."""
    resume = "rerun the same sweep to resume it"
    if ranked.winner is None:
        return f"{resume}, or name another run with {key}"
    value = catalog.of_run(ranked.winner.run_id) if key == "export.model" else sweep.run_id
    return f"{resume}, or set {key}={value} to take its best finished cell"
