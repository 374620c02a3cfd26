"""Write the page of a sweep: what came out, what matters, where the best cell errs, on what data, how long.

    mlflow run . -e report
    mlflow run . -e report -P report.run_id=RUN_ID

Reads the runs of a sweep in whatever state, and of its cells; shows pictures where the prepared ones are
still on this machine. Writes `report.output`, one HTML file that opens from disk, and logs it on the sweep's
run as report.html, as the sweep itself does at its end. Takes some 15 s, of which TensorFlow is half.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.params import Params
from pipeline.quiet import importing_tensorflow
from pipeline.steps import command, write

if TYPE_CHECKING:
    from pipeline.pages.findings import Exhibits


def run(params: Params) -> Path:
    """Make the page, write it and log it; returns the file."""
    from pipeline.data.prepared import Prepared
    from pipeline.pages import sweep as page
    from pipeline.sweep import gathering, ranking
    from pipeline.tracking import artifacts, histories, runs, trials

    found = histories.sweep_run(params.report.run_id)
    run_id, sweep = found.info.run_id, trials.Sweep.of(found)
    with runs.started_by_mlflow("report", params, {"step": "report", "reported_run_id": run_id}):
        ranked = ranking.of(sweep)
        pictures = gathering.pictures_of(run_id, Path(params.data.cache))
        there = pictures if isinstance(pictures, Prepared) else None
        exhibits = _exhibits(ranked.winner.run_id if ranked.cells else None, there, "" if there else pictures)
        content = page.page(gathering.gather(run_id, ranked, pictures, exhibits))
        output = Path(params.report.output)
        write({output.name: content}, output.parent, "report.output")
        artifacts.log_files({"report.html": content}, run_id=run_id)
    print(f"report of the sweep {run_id}, {len(ranked.cells)} finished cells: {output.absolute()}")
    return output


def _exhibits(winner: str | None, pictures, missing: str) -> "Exhibits":
    from pipeline.pages.findings import Exhibits

    if winner is None:
        return Exhibits.none("No cell is finished.")
    with importing_tensorflow():
        from pipeline.sweep import exhibits
    return exhibits.of(winner, pictures, missing)


def main() -> None:
    """Parse the command line and report."""
    command(run)


if __name__ == "__main__":
    main()
