"""The doctor's two parts: what the images alone show, and what training on them shows."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.doctor import checks, duplicates, image_stats
from pipeline.doctor.cost import Measured
from pipeline.doctor.findings import Finding
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.sources.source import SourceImage
from pipeline.sources.split_names import TEST, TRAIN, VALIDATION


@dataclass
class Problems:
    """The reasons why the sweep would fail, each once."""

    texts: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        """Collect the UserError that ends the block, if any.

        >>> problems = Problems()
        >>> with problems.collect():
        ...     raise UserError("no images")
        >>> problems.texts
        ['no images']
        """
        try:
            yield
        except UserError as error:
            if str(error) not in self.texts:
                self.texts.append(str(error))


@dataclass(frozen=True, eq=False)
class Inspection:
    """What the images alone show.

    Attributes:
        stats: The headers of the files.
        findings: Of every check that needs no model.
        groups: (n,) int64, for each image the lowest index in its group of (near) duplicates.
    """

    stats: image_stats.HeaderStats
    findings: list[Finding]
    groups: np.ndarray


def inspect(prepared: Prepared, images: Mapping[str, SourceImage]) -> Inspection:
    """Run the checks that need no model.

    Args:
        prepared: The dataset.
        images: The source's images by name.
    """
    stats = image_stats.read_headers([images[name] for name in prepared.names])
    copies = [(group[0], copy) for group in prepared.identical for copy in group[1:]]
    distinct = np.setdiff1d(np.arange(len(prepared.names)), [copy for _, copy in copies])
    pairs, complete = duplicates.near(prepared.images, distinct)
    findings = [
        *checks.left_out(prepared.rejected, {name: image.label for name, image in images.items()}),
        *checks.classes(prepared),
        *checks.duplicates(prepared, pairs, complete),
        *checks.upsampled(prepared, stats.sizes, stats.upsampled(prepared.image_size)),
    ]
    edges = [*((pair.first, pair.second) for pair in pairs), *copies]
    return Inspection(stats, findings, duplicates.groups(len(prepared.names), edges))


def first_cell(params: Params, prepared: Prepared, problems: Problems) -> Params:
    """The parameters of the sweep's first cell; builds every network of the grid once, to find errors."""
    with importing_tensorflow():
        from pipeline import models
    lists = {key: values for key, values in params.sweep.grid.values().items() if isinstance(values, tuple)}
    varied = [key for key in ("name", "backbone", "weights") if key in lists]
    for values in itertools.product(*(lists[key] for key in varied)):
        with problems.collect():
            cell = params.with_cell(dict(zip(varied, values, strict=True)))
            models.build(cell.model, prepared.image_size, len(prepared.classes), params.seed)
    return params.with_cell({key: values[0] for key, values in lists.items()})


def train(params: Params, prepared: Prepared, groups: np.ndarray) -> tuple[Measured, list[Finding]]:
    """Time a few steps of a network, and find label-error candidates unless `doctor.labels` is false.

    Args:
        params: Of the cell.
        prepared: n images.
        groups: (n,) int64, as in `Inspection`.
    """
    import keras

    from pipeline import models
    from pipeline.doctor import baseline, label_noise, timing
    from pipeline.training.batches import LabelledImages

    keras.utils.clear_session()  # cached features are found by layer names, which Keras numbers per session
    network = models.build(params.model, prepared.image_size, len(prepared.classes), params.seed)
    training, validation, test = (LabelledImages.of(prepared, split) for split in (TRAIN, VALIDATION, TEST))
    with_labels = params.doctor.labels and len(prepared.names) >= baseline.MIN_IMAGES
    # the baseline model computes the features, and caches them for the sweep
    measured = timing.measure(network, params, prepared, training, validation, with_features=not with_labels)
    if not with_labels:
        return measured, []
    print("training a baseline model to find label errors; doctor.labels=false skips it", flush=True)
    folds = label_noise.folds(prepared.labels, groups, params.seed)
    splits = [split for split in (training, validation, test) if len(split.indices)]
    predictions = baseline.predict_out_of_fold(network, params, prepared, splits, folds)
    suspects = label_noise.suspects(prepared.labels, predictions.probabilities)
    return measured, checks.suspected_labels(prepared, predictions, suspects)
