"""What a sweep's run gets at the end: the leaderboard, the verdict, and the winner's test scores."""

import sys

from pipeline.dataset.prepare import Prepared
from pipeline.execution import best_model
from pipeline.runtime.console import BOLD, styled
from pipeline.sources import split_names
from pipeline.sweep import leaderboard, verdict
from pipeline.sweep import ranking as rankings
from pipeline.sweep.cells import Cell
from pipeline.sweep.context import Backend, SweepContext
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import artifacts, runs


def record(ranking: Ranking, context: SweepContext) -> None:
    """Log the ranking and the verdict to the sweep's run, and print them.

    Args:
        ranking: A ranking of at least one finished cell.
        context: The open sweep.
    """
    table = leaderboard.Table(ranking, context.params)
    lines = verdict.lines(found := verdict.of(ranking))
    context.fence.check()
    artifacts.log_files(
        {
            rankings.FILE: ranking.as_json(),
            "leaderboard.csv": table.as_csv(),
            "leaderboard.md": table.as_markdown(lines).encode(),
            verdict.FILE: verdict.as_json(found),
        }
    )
    winner = ranking.cells[0].result
    runs.set_tags({"best_run_id": winner.run_id})
    shown = {*leaderboard.SCORES, ranking.objective.name}
    runs.log_metrics({f"best/{name}": winner.scores[name] for name in shown})
    print(table.as_console())
    print("\n".join(lines))


def measure(ranking: Ranking, prepared: Prepared, context: SweepContext, backend: Backend) -> None:
    """Measure the winner on the test split, unless that was done before, and print its scores.

    Args:
        ranking: A ranking of at least one finished cell.
        prepared: The prepared images.
        context: The open sweep.
        backend: Where the winner is measured.

    Raises:
        UserError: The workers cannot measure it, or another driver has taken the sweep over.
    """
    sweep, fence = context.sweep, context.fence
    winner, metric = ranking.cells[0].result, ranking.objective.name
    name = Cell(ranking.cells[0].values).name
    scores = f"validation {metric} {winner.scores[metric]:.4f}"
    if len(prepared.indices(split_names.TEST)):
        tested = sweep.tags.get("tested_run_id") == winner.run_id
        if tested and f"test/{metric}" in sweep.metrics:
            measured = {key: sweep.metrics[f"test/{key}"] for key in ("accuracy", "f1")}
        else:
            fence.check()
            if "tested_run_id" in sweep.tags:  # of an earlier winner, whose scores are overwritten now
                runs.delete_tag("tested_run_id", sweep.run_id)
            measured = backend.executor.call(
                best_model.evaluate,
                sweep.run_id,
                winner.run_id,
                name,
                backend.store,
                backend.images,
                fence.token,
            )
            fence.check()
            runs.set_tags({"tested_run_id": winner.run_id})
        scores += f", test accuracy {measured['accuracy']:.4f}, test F1 {measured['f1']:.4f}"
    print(styled(f"best: {name} ({scores}), run {winner.run_id}", BOLD, sys.stdout))
