"""The page of a sweep, made at its end."""

import threading

from pipeline.dataset.prepare import Prepared
from pipeline.execution import best_model
from pipeline.execution.lock import Fence
from pipeline.runtime import hardware
from pipeline.runtime.errors import UserError
from pipeline.sweep.driver import Place
from pipeline.sweep.ranking import Ranking
from pipeline.tracking import StoreError, artifacts, first_line, runs
from pipeline.tracking.sweep_runs import Sweep


def show(ranking: Ranking, sweep: Sweep, fence: Fence, prepared: Prepared, place: Place) -> None:
    """Log the sweep's page to its run, and say where it is; the results stand without it."""
    # charts and what they need are imported when cells no longer train
    from pipeline.pages import sweep as page
    from pipeline.pages.sweep_data import Exhibits
    from pipeline.reports import collect_sweep

    bundling = threading.Thread(target=page.bundle)  # while a worker draws heat maps
    bundling.start()
    fence.check()
    runs.set_tags({"machine": hardware.description()})
    try:
        if not (ranking.complete and ranking.cells):  # whoever stops it does not want to wait
            exhibits = Exhibits.none(
                "A sweep that was stopped shows none; to have them: mlflow run . -e report"
            )
        else:
            exhibits = place.executor.call(
                best_model.exhibits, ranking.winner.run_id, place.store, place.images
            )
        found = collect_sweep.gather(sweep.run_id, ranking, prepared, exhibits)
    except (UserError, StoreError, OSError) as error:
        reason = first_line(error)
        print(f"there is no report: {reason}; `mlflow run . -e report` makes it", flush=True)
        return
    bundling.join()
    content = page.page(found)
    fence.check()
    artifacts.log_files({"report.html": content})
    print(f"report: {artifacts.place_of(sweep.run_id, 'report.html')}")
