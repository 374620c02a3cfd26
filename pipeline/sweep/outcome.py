"""What a sweep's run gets at the end: the cells' ranking, the best one's test, and a page of it all."""

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import machine
from pipeline.console import BOLD, styled
from pipeline.data.prepared import Prepared
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.sweep import leaderboard, verdict, worker
from pipeline.sweep.cells import Cell
from pipeline.sweep.executors import Here, OnCluster
from pipeline.sweep.finalists import Finalist
from pipeline.tracking import runs
from pipeline.tracking.trials import CellRun, Sweep


def record(ranking: Sequence[CellRun], repeated: Sequence[Finalist], params: Params, pictures: int) -> None:
    """Log the ranking, and how sure it is on so many pictures, to the sweep's run, and print them."""
    table = leaderboard.Table(ranking, params, pictures, repeated)
    found = verdict.of(ranking, repeated, params.sweep.metric, pictures)
    runs.log_files(
        {
            "leaderboard.csv": table.as_csv(),
            "leaderboard.md": table.as_markdown(verdict.lines(found)).encode(),
            verdict.FILE: verdict.as_json(found),
        }
    )
    runs.set_tags({"best_run_id": ranking[0].run_id})
    scores = ranking[0].trial.scores
    runs.log_metrics({f"best/{name}": scores[name] for name in {*leaderboard.SCORES, params.sweep.metric}})
    print(table.as_console())
    print("\n".join(verdict.lines(found)))


def measure(
    winner: CellRun, params: Params, sweep: Sweep, executor: Here | OnCluster, where: Mapping[str, Any]
) -> None:
    """Measure the winner on the test split, where it has not been, and say which it is."""
    name, metric = Cell(winner.values).name, params.sweep.metric
    scores = f"validation {metric} {winner.trial.scores[metric]:.4f}"
    if params.data.test > 0:
        if sweep.tags.get("tested_run_id") == winner.run_id:
            measured = {key: sweep.metrics[f"test/{key}"] for key in ("accuracy", "f1")}
        else:
            measured = executor.call(
                worker.evaluate_winner, sweep.run_id, winner.run_id, name, runs.store(), where
            )
            runs.set_tags({"tested_run_id": winner.run_id})
        scores += f", test accuracy {measured['accuracy']:.4f}, test F1 {measured['f1']:.4f}"
    print(styled(f"best: {name} ({scores}), run {winner.run_id}", BOLD, sys.stdout))


def show(
    ranking: Sequence[CellRun],
    params: Params,
    sweep: Sweep,
    pictures: Prepared,
    executor: Here | OnCluster,
    where: Mapping[str, Any],
    stopped: bool,
) -> None:
    """Log the sweep's page to its run, and say where it is; the results stand without it."""
    # charts and what they need are imported when cells no longer train
    from pipeline.pages import sweep as page
    from pipeline.pages.findings import Exhibits
    from pipeline.sweep import gathering

    bundling = threading.Thread(target=page.bundle)  # while a worker draws heat maps
    bundling.start()
    runs.set_tags({"machine": machine.description()})
    try:
        if stopped or not ranking:  # whoever stops it does not want to wait
            exhibits = Exhibits.none(
                "A sweep that was stopped shows none; to have them: mlflow run . -e report"
            )
        else:
            exhibits = executor.call(worker.exhibits, ranking[0].run_id, runs.store(), where)
        found = gathering.gather(sweep.run_id, ranking, params.sweep.metric, pictures, exhibits)
    except UserError as error:
        print(f"there is no report: {error}; `mlflow run . -e report` makes it")
        return
    bundling.join()
    runs.log_files({"report.html": page.page(found)})
    print(f"report: {runs.place_of(sweep.run_id, 'report.html')}")
