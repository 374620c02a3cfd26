"""Check the images before training, and estimate what the sweep costs.

    mlflow run . -e doctor -P data.source=photos

Prepares the images with the sweep's settings, and so with its splits. Reports unreadable images, duplicates
across labels and splits, imbalanced classes and label-error candidates. Writes doctor.html and findings.csv
to `doctor.output`, and logs them to a run. Fails if the sweep would fail. Takes some 90 s for 8,000 photos
on two cores, most of it for the baseline model.
"""

import contextlib
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.steps import command, write

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.doctor.cost import Cost, Measured
    from pipeline.doctor.examine import Problems
    from pipeline.doctor.findings import Finding
    from pipeline.doctor.page import Examination
    from pipeline.sources.source import SourceImage


def run(params: Params) -> "Examination":
    """Examine the images and record the findings.

    Raises:
        UserError: The sweep would fail. The findings are written and recorded first.
    """
    from pipeline.tracking import runs

    with runs.run("doctor", params, {"step": "doctor"}):
        examination, images = _examine(params)
        _record(params, examination, images)
        if examination.problems:
            raise UserError("the sweep would fail: " + "; ".join(examination.problems))
    return examination


def _examine(params: Params) -> "tuple[Examination, Mapping[str, SourceImage]]":
    """The examination, and the source's images by name."""
    from pipeline.doctor import cost, examine
    from pipeline.doctor.page import Examination
    from pipeline.sources import source as sources
    from pipeline.sweep import plan
    from pipeline.tracking import store
    from pipeline.training import mixed_precision

    problems, workers = examine.Problems(), 1
    source = prepared = inspection = estimate = None
    images: dict[str, SourceImage] = {}
    warnings: list[str] = []
    suspected: list[Finding] = []
    with problems.collect():
        params = plan.own_grid(params)
    with problems.collect():
        source = sources.open_source(params.data.source, Path(params.data.cache), params.data.sha256)
        images = {image.name: image for image in source.images}
        prepared = _prepare(params, problems)
    with problems.collect():
        workers = _workers(params)
    if prepared:
        inspection = examine.inspect(prepared, images)
        with problems.collect():
            if params.sweep.cluster is None:
                params.check_files()  # collected by `_workers` already; without the files, nothing is built
            params = examine.first_cell(mixed_precision.resolve_and_print(params), prepared, problems)
            measured, suspected = examine.train(params, prepared, inspection.groups)
            estimate = _estimate(params, prepared, measured, workers)
            if params.sweep.cluster is None:
                errors, warnings = cost.shortages(estimate, bool(store.local_part()))
                problems.texts += errors
    findings = [*inspection.findings, *suspected] if inspection else []
    examination = Examination(
        source.description if source else "",
        prepared,
        inspection.stats if inspection else None,
        tuple(sorted(findings, key=lambda finding: not finding.is_warning)),
        estimate,
        tuple(warnings),
        tuple(problems.texts),
    )
    return examination, images


def _workers(params: Params) -> int:
    """The number of cells that train at once; raises the errors that the sweep raises at its start."""
    from pipeline.execution import cluster, launch

    if params.sweep.cluster is None:
        params.check_files()
        return launch.workers(params) or 1
    launch.workers(params)
    executor, _ = cluster.connect(params.sweep)
    try:
        return max(1, executor.slots())
    finally:
        executor.close()


def _prepare(params: Params, problems: "Problems") -> "Prepared":
    """The dataset, even if so many images are rejected that the sweep would refuse it."""
    from pipeline.dataset import prepare

    found = prepare.prepare(params.data.model_copy(update={"max_rejected": 1.0}), params.seed)
    if found.rejected:
        with problems.collect(), contextlib.redirect_stdout(io.StringIO()):
            prepare.prepare(params.data, params.seed)  # prepared already; raises if too many are rejected
    return found


def _estimate(params: Params, prepared: "Prepared", measured: "Measured", workers: int) -> "Cost":
    """The cost of the sweep on this machine."""
    from distributed.system import MEMORY_LIMIT

    from pipeline.doctor import cost
    from pipeline.execution import cluster
    from pipeline.sources import split_names
    from pipeline.sweep import cells
    from pipeline.training.batches import LabelledImages

    cache = LabelledImages.of(prepared, split_names.TRAIN).cache
    is_cached = cache is not None and cache.folder.exists()  # by the baseline model, or a sweep
    grid = params.sweep.sampler == "grid"
    free = shutil.disk_usage(Path.cwd()).free
    return cost.estimate(
        params,
        prepared,
        measured,
        cells.count(params.sweep.grid) if grid else params.sweep.n_trials or 0,
        cost.Resources(workers, cluster.WORKER_MEMORY, MEMORY_LIMIT, free),
        features_left=0.0 if is_cached else 1.0,
    )


def _record(params: Params, examination: "Examination", images: "Mapping[str, SourceImage]") -> None:
    """Write and log the page and the table, and print a summary."""
    from pipeline.doctor import findings, page
    from pipeline.tracking import artifacts, runs

    files = {
        "doctor.html": page.html(examination, images),
        "findings.csv": findings.table(examination.findings),
    }
    folder = Path(params.doctor.output)
    write(files, folder, "doctor.output")
    artifacts.log_files(files, "doctor")
    if examination.prepared:
        artifacts.log_dataset(examination.prepared, params.data.source)
        counts = {finding.key: finding.count for finding in examination.findings}
        runs.log_metrics({f"findings/{key}": counts.get(key, 0) for key in findings.KEYS})
    print(*page.console(examination), f"page: {(folder / 'doctor.html').absolute()}", sep="\n", flush=True)


def main() -> None:
    """Parse the command line and examine."""
    command(run)


if __name__ == "__main__":
    main()
