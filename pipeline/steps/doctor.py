"""Look at the images before anything is trained: what is wrong with them, and what a sweep will take.

    mlflow run . -e doctor -P data.source=photos

Prepares the images as the sweep does, with the same settings and so the same splits, and looks for what
cannot be read, duplicates across labels and splits, uneven classes, and labels that a first model doubts.
Writes doctor.html and findings.csv to `doctor.output` and logs them to a run. The exit status is not 0 where
the sweep would fail. 8,000 photos take some 90 s on two cores, most of that for the first model.
"""

import contextlib
import io
import itertools
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command, write

if TYPE_CHECKING:
    import numpy as np

    from pipeline.dataset.prepare import Prepared
    from pipeline.doctor.cost import Needs, Pace
    from pipeline.doctor.findings import Finding
    from pipeline.doctor.image_stats import Looks
    from pipeline.doctor.page import Examination
    from pipeline.sources.source import SourceImage


@dataclass
class _Problems:
    """Why the sweep would fail, as far as it was found."""

    texts: list[str]

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Takes a user's error that the block ends with."""
        try:
            yield
        except UserError as error:
            if str(error) not in self.texts:
                self.texts.append(str(error))


def run(params: Params) -> "Examination":
    """Examine the images and record it.

    Raises:
        UserError: the sweep would fail; everything is written and recorded all the same.
    """
    from pipeline.tracking import runs

    with runs.run("doctor", params, {"step": "doctor"}):
        examination, images = _examine(params)
        _record(params, examination, images)
        if examination.problems:
            raise UserError("the sweep would fail: " + "; ".join(examination.problems))
    return examination


def _examine(params: Params) -> "tuple[Examination, dict[str, SourceImage]]":
    """All that can be found out, and the source's images by name."""
    from pipeline.doctor.page import Examination
    from pipeline.sources import source as sources
    from pipeline.sweep import plan
    from pipeline.training import mixed_precision

    problems, workers = _Problems([]), 1
    source = prepared = looks = needs = None
    images, found, room = {}, [], []
    with problems.noted():
        params = plan.own_grid(params)
    with problems.noted():
        source = sources.open_source(params.data.source, Path(params.data.cache), params.data.sha256)
        images = {image.name: image for image in source.images}
        prepared = _prepared(params, problems)
    with problems.noted():
        workers = _workers(params)
    if prepared:
        looks, found, groups = _look(prepared, images)
        with problems.noted():
            if params.sweep.cluster is None:
                params.check_files()  # told already; without them there is no network to look at
            params = _first_cell(mixed_precision.in_precision(params), prepared, problems)
            pace, doubts = _train(params, prepared, groups)
            needs, room = _needs(params, prepared, pace, workers, problems)
            found += doubts
    examination = Examination(
        source.description if source else "",
        prepared,
        looks,
        tuple(sorted(found, key=lambda finding: not finding.to_do)),
        needs,
        tuple(room),
        tuple(problems.texts),
    )
    return examination, images


def _workers(params: Params) -> int:
    """How many processes will train at once; checked as the sweep does before it begins."""
    from pipeline.execution import cluster, launch

    if params.sweep.cluster is None:
        params.check_files()
        return launch.workers(params)
    launch.workers(params)
    executor, _ = cluster.connect(params.sweep)
    try:
        return executor.slots()
    finally:
        executor.close()


def _prepared(params: Params, problems: _Problems) -> "Prepared":
    """The images, however many cannot be used: the sweep may refuse them, the doctor says which."""
    from pipeline.dataset import prepare

    found = prepare.prepare(params.data.model_copy(update={"max_rejected": 1.0}), params.seed)
    if found.rejected:
        with problems.noted(), contextlib.redirect_stdout(io.StringIO()):
            prepare.prepare(params.data, params.seed)  # finds them prepared, and only judges
    return found


def _look(
    prepared: "Prepared", images: "Mapping[str, SourceImage]"
) -> "tuple[Looks, list[Finding], np.ndarray]":
    """What is found without a model, and the number of each image's group of (near) duplicates."""
    import numpy as np

    from pipeline.doctor import checks, duplicates, image_stats

    seen = image_stats.look([images[name] for name in prepared.names])
    copies = [copy for group in prepared.identical for copy in group[1:]]
    pairs, complete = duplicates.near(prepared.images, np.setdiff1d(np.arange(len(prepared.names)), copies))
    found = [
        *checks.left_out(prepared.rejected, {name: image.label for name, image in images.items()}),
        *checks.classes(prepared),
        *checks.duplicates(prepared, pairs, complete),
        *checks.enlarged(prepared, seen.sizes, seen.smaller(prepared.image_size)),
    ]
    linked = [(pair.first, pair.second) for pair in pairs]
    linked += [(group[0], copy) for group in prepared.identical for copy in group[1:]]
    return seen, found, duplicates.groups(len(prepared.names), linked)


def _first_cell(params: Params, prepared: "Prepared", problems: _Problems) -> Params:
    """The parameters of the sweep's first cell; every network of the grid is built once, and forgotten."""
    with importing_tensorflow():
        from pipeline import models
    lists = {key: values for key, values in params.sweep.grid.values().items() if isinstance(values, tuple)}
    varied = [key for key in ("name", "backbone", "weights") if key in lists]
    for values in itertools.product(*(lists[key] for key in varied)):
        with problems.noted():
            cell = params.with_cell(dict(zip(varied, values, strict=True)))
            models.build(cell.model, prepared.image_size, len(prepared.classes), params.seed)
    return params.with_cell({key: values[0] for key, values in lists.items()})


def _train(params: Params, prepared: "Prepared", groups: "np.ndarray") -> "tuple[Pace, list[Finding]]":
    """A few steps of the cell's network, timed; and the labels that a first model doubts."""
    import keras

    from pipeline import models
    from pipeline.doctor import baseline, checks, label_noise, timing
    from pipeline.sources import split_names
    from pipeline.training import batches

    keras.utils.clear_session()  # features are kept under the names of layers, as a training numbers them
    network = models.build(params.model, prepared.image_size, len(prepared.classes), params.seed)
    training, validation, test = (
        batches.examples(prepared, split)
        for split in (split_names.TRAIN, split_names.VALIDATION, split_names.TEST)
    )
    asked = params.doctor.labels and len(prepared.names) >= baseline.FEWEST
    # the first model computes the features, and leaves them to the sweep
    measured = timing.measure(network, params, prepared, training, validation, with_features=not asked)
    if not asked:
        return measured, []
    print("training a first model, which doctor.labels=false leaves out", flush=True)
    every = [split for split in (training, validation, test) if len(split.indices)]
    folds = label_noise.folds(prepared.labels, groups, params.seed)
    answers = baseline.ask(network, params, prepared, every, folds)
    suspects = label_noise.suspects(prepared.labels, answers.probabilities)
    return measured, checks.suspected_labels(prepared, answers, suspects)


def _needs(
    params: Params, prepared: "Prepared", pace: "Pace", workers: int, problems: _Problems
) -> "tuple[Needs, list[str]]":
    """What the sweep takes, and what there is too little of."""
    from distributed.system import MEMORY_LIMIT

    from pipeline.doctor import cost
    from pipeline.execution import cluster
    from pipeline.sources import split_names
    from pipeline.sweep import cells
    from pipeline.tracking import store
    from pipeline.training import batches

    asked = params.sweep
    # by the first model, or a sweep
    there = batches.examples(prepared, split_names.TRAIN).features.folder.exists()
    free = shutil.disk_usage(Path.cwd()).free
    takes = cost.of(
        params,
        prepared,
        pace,
        cells.count(asked.grid) if asked.sampler == "grid" else asked.n_trials,
        cost.Room(max(1, workers), cluster.WORKER_MEMORY, MEMORY_LIMIT, free),
        left=0.0 if there else 1.0,
    )
    if asked.cluster is not None:  # other machines, and what they have is theirs to say
        return takes, []
    if store.local_part() and takes.disk > free:
        problems.texts.append(
            f"the disk of {Path.cwd()} is too full: the runs of {takes.cells:,} cells take some "
            f"{takes.disk / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free. Free some, or sweep fewer cells"
        )
    if takes.memory <= MEMORY_LIMIT:
        return takes, []
    return takes, [
        f"{takes.room.workers} networks at once take some {takes.memory / 1e9:.1f} GB of memory, and this "
        f"machine has {MEMORY_LIMIT / 1e9:.1f} GB: lower sweep.workers, or train.batch_size"
    ]


def _record(params: Params, examination: "Examination", images: "Mapping[str, SourceImage]") -> None:
    """Write and log the page and the table, and print the rest."""
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
        counts = dict.fromkeys(findings.KEYS, 0) | {
            finding.key: finding.count for finding in examination.findings
        }
        runs.log_metrics({f"findings/{key}": count for key, count in counts.items()})
    print(*page.console(examination), f"page: {(folder / 'doctor.html').absolute()}", sep="\n", flush=True)


def main() -> None:
    """Parse the command line and look."""
    command(run)


if __name__ == "__main__":
    main()
