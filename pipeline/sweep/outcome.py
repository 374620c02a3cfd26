"""What a sweep's run gets at the end: the cells' ranking, the best one's test, and a page of it all."""

import sys

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.execution import best_model
from pipeline.execution.lock import Fence
from pipeline.runtime.console import BOLD, styled
from pipeline.sources import split_names
from pipeline.sweep import leaderboard, verdict
from pipeline.sweep import ranking as ranked
from pipeline.sweep.cells import Cell
from pipeline.sweep.driver import Place
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import artifacts, runs
from pipeline.tracking.sweep_runs import Sweep


def record(ranking: Ranking, params: Params, fence: Fence) -> None:
    """Log the ranking, and how sure it is, to the sweep's run, and print them; a cell or more is finished."""
    table = leaderboard.Table(ranking, params)
    found = verdict.of(ranking)
    fence.check()
    artifacts.log_files(
        {
            ranked.FILE: ranking.as_json(),
            "leaderboard.csv": table.as_csv(),
            "leaderboard.md": table.as_markdown(verdict.lines(found)).encode(),
            verdict.FILE: verdict.as_json(found),
        }
    )
    runs.set_tags({"best_run_id": ranking.winner.run_id})
    scores = ranking.winner.trial.scores
    shown = {*leaderboard.SCORES, ranking.objective.name}
    runs.log_metrics({f"best/{name}": scores[name] for name in shown})
    print(table.as_console())
    print("\n".join(verdict.lines(found)))


def measure(ranking: Ranking, prepared: Prepared, sweep: Sweep, fence: Fence, place: Place) -> None:
    """Measure the winner on the test split, where it has not been, and say which it is.

    Raises:
        UserError: where cells run, it cannot be done; or the sweep is another driver's by now.
    """
    winner, metric = ranking.winner, ranking.objective.name
    name = Cell(winner.values).name
    scores = f"validation {metric} {winner.trial.scores[metric]:.4f}"
    if len(prepared.indices(split_names.TEST)):
        tested = sweep.tags.get("tested_run_id") == winner.run_id
        if tested and f"test/{metric}" in sweep.metrics:
            measured = {key: sweep.metrics[f"test/{key}"] for key in ("accuracy", "f1")}
        else:
            fence.check()
            if "tested_run_id" in sweep.tags:  # of an earlier winner, whose scores are overwritten now
                runs.delete_tag("tested_run_id", sweep.run_id)
            measured = place.executor.call(
                best_model.evaluate,
                sweep.run_id,
                winner.run_id,
                name,
                place.store,
                place.images,
                fence.token,
            )
            fence.check()
            runs.set_tags({"tested_run_id": winner.run_id})
        scores += f", test accuracy {measured['accuracy']:.4f}, test F1 {measured['f1']:.4f}"
    print(styled(f"best: {name} ({scores}), run {winner.run_id}", BOLD, sys.stdout))
