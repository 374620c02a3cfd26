"""Write the report page of a sweep: result, parameter importance, errors of the best cell, data, time.

    mlflow run . -e report
    mlflow run . -e report -P report.run_id=RUN_ID

Reads the runs of a sweep, finished or not, and of its cells; shows images if the prepared dataset is still
on this machine. Writes `report.output`, one self-contained HTML file, and logs it to the sweep's run as
report.html, as the sweep itself does at its end. Takes some 15 s, half of it to import TensorFlow.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command, write

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.pages.sweep_data import Exhibits


def run(params: Params) -> Path:
    """Render the page, write it and log it; returns the path of the file."""
    from pipeline.dataset.prepare import Prepared
    from pipeline.pages import sweep as page
    from pipeline.reports import collect_sweep
    from pipeline.sweep import ranking
    from pipeline.tracking import artifacts, metric_histories, runs, sweep_runs

    found = metric_histories.sweep_run(params.report.run_id)
    run_id, sweep = found.info.run_id, sweep_runs.Sweep.from_run(found)
    with runs.started_by_mlflow("report", params, {"step": "report", "reported_run_id": run_id}):
        ranked = ranking.of(sweep)
        images = collect_sweep.images_of(run_id, Path(params.data.cache))
        prepared, missing = (images, "") if isinstance(images, Prepared) else (None, images)
        exhibits = _exhibits(ranked.winner.run_id if ranked.winner else None, prepared, missing)
        content = page.page(collect_sweep.gather(run_id, ranked, images, exhibits))
        output = Path(params.report.output)
        write({output.name: content}, output.parent, "report.output")
        artifacts.log_files({"report.html": content}, run_id=run_id)
    print(f"report of the sweep {run_id}, {len(ranked.cells)} finished cells: {output.absolute()}")
    return output


def _exhibits(winner: str | None, images: "Prepared | None", missing: str) -> "Exhibits":
    """The images that the best cell's model shows; without any if no cell is finished."""
    from pipeline.pages.sweep_data import Exhibits

    if winner is None:
        return Exhibits.none("No cell is finished.")
    with importing_tensorflow():
        from pipeline.inference import error_analysis
    return error_analysis.of(winner, images, missing)


def main() -> None:
    """Parse the command line and report."""
    command(run)


if __name__ == "__main__":
    main()
