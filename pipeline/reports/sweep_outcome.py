"""The report page of a sweep, made at its end."""

import threading

from pipeline.dataset.prepare import Prepared
from pipeline.execution import best_model
from pipeline.runtime import hardware
from pipeline.runtime.errors import UserError
from pipeline.sweep.context import Backend, SweepContext
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import StoreError, artifacts, first_line, runs


def show(ranking: Ranking, prepared: Prepared, context: SweepContext, backend: Backend) -> None:
    """Log the report page of an open sweep to its run, and print where it is; a failure stops nothing.

    Args:
        ranking: The sweep's ranking.
        prepared: The prepared images.
        context: The open sweep.
        backend: Where the heat maps of the winner are computed.
    """
    # Imported here: the charts' libraries take memory that training cells need.
    from pipeline.pages import sweep as page
    from pipeline.pages.sweep_data import Exhibits
    from pipeline.reports import collect_sweep

    bundling = threading.Thread(target=page.bundle)  # in parallel with the heat maps
    bundling.start()
    context.fence.check()
    runs.set_tags({"machine": hardware.description()})
    try:
        if not (ranking.complete and ranking.cells):  # a user who stops a sweep does not want to wait
            exhibits = Exhibits.none(
                "An unfinished sweep has none; to compute them, run mlflow run . -e report"
            )
        else:
            exhibits = backend.executor.call(
                best_model.exhibits, ranking.cells[0].run_id, backend.store, backend.images
            )
        found = collect_sweep.gather(context.sweep.run_id, ranking, prepared, exhibits)
    except (UserError, StoreError, OSError) as error:
        reason = first_line(error)
        print(f"the report was not made: {reason}; rerun `mlflow run . -e report`", flush=True)
        return
    bundling.join()
    content = page.page(found)
    context.fence.check()
    artifacts.log_files({"report.html": content})
    print(f"report: {artifacts.location_of(context.sweep.run_id, 'report.html')}")
