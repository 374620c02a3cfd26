"""Train every cell of a grid, rank them, and measure the best one on the test split.

    mlflow run . -e sweep
    mlflow run . -e sweep -P 'sweep.grid={"batch_size":[16,64],"dropout":[0.3,0.5]}'

Each cell is a run nested in the sweep's, with its metrics, report and model. The sweep's own run gets the
leaderboard, the best cell's id (tag `best_run_id`) and that cell's report on the test split, which nothing
else has touched. The default, 48 cells on the drawn sample, takes about 5 minutes on two cores.
"""

import hashlib
import json

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.quiet import importing_tensorflow
from pipeline.steps import command


def run(params: Params):
    """Sweep and record it; returns the cells' outcomes, best first.

    Raises:
        UserError: a cell failed; the others are recorded all the same.
    """
    from pipeline.data import prepared

    pictures = prepared.prepare(params.data, params.seed)
    with importing_tensorflow():
        from pipeline.sweep import cells, driver, leaderboard
    from pipeline.tracking import runs

    study = study_name(params, pictures.digest)
    with runs.run("sweep", params, {"step": "sweep", "study": study}):
        runs.log_prepared(pictures, params.data.source)
        print(f"{cells.count(params.sweep.grid)} cells, one after the other; study {study}", flush=True)
        outcomes = driver.drive(params, pictures, study)
        failed = [outcome for outcome in outcomes if outcome.trial is None]
        counts = {"total": len(outcomes), "finished": len(outcomes) - len(failed), "failed": len(failed)}
        runs.log_metrics({f"cells/{key}": value for key, value in counts.items()})
        ranking = leaderboard.ranked(outcomes, params.sweep.metric)
        if ranking:
            _record(ranking, params, pictures)
        if failed:
            lines = [f"  {outcome.cell.name}: {outcome.reason}" for outcome in failed]
            raise UserError("\n".join([f"{len(failed)} of {len(outcomes)} cells failed:", *lines]))
    print("compare the cells with `mlflow ui`; register the best with `mlflow run . -e register`")
    return ranking


def study_name(params: Params, data_digest: str) -> str:
    """The study's name: what its cells depend on, but not the grid, decides it."""
    depends_on = [data_digest, params.seed, params.model.model_dump(), params.train.model_dump()]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]


def _record(ranking, params: Params, pictures) -> None:
    """Log what the sweep found to its run, and print it."""
    from pipeline import evaluation
    from pipeline.data import splits
    from pipeline.sweep import leaderboard
    from pipeline.tracking import models, runs

    winner = ranking[0]
    runs.log_files(
        {
            "leaderboard.csv": leaderboard.as_csv(ranking),
            "leaderboard.md": leaderboard.as_markdown(ranking).encode(),
        }
    )
    runs.set_tags({"best_run_id": winner.trial.run_id})
    runs.log_metrics({f"best/{name}": winner.trial.scores[name] for name in leaderboard.SCORES})
    print(leaderboard.as_console(ranking))
    scores = f"validation {params.sweep.metric} {winner.trial.scores[params.sweep.metric]:.4f}"
    if params.data.test > 0:
        model = models.load(models.of_run(winner.trial.run_id))
        result = evaluation.evaluate(model, pictures, splits.TEST)
        evaluation.record(result, pictures, splits.TEST, f"{winner.cell.name}, test split")
        scores += f", test accuracy {result.report.accuracy:.4f}, test F1 {result.report.f1:.4f}"
    print(f"best: {winner.cell.name} ({scores}), run {winner.trial.run_id}")


def main() -> None:
    """Parse the command line and sweep."""
    command(run)


if __name__ == "__main__":
    main()
