"""The champion's gate: whether a newcomer takes the alias from the version that has it, and why.

Both models see the same images of the same split, each at its own input size: the newcomer's images are
prepared once more at the champion's size, from the same source, with the same seed. `find` needs no
TensorFlow, so that these images are decoded before it is imported; `Contest.decide` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.dataset.prepare import Prepared
from pipeline.evaluation.objective import Objective
from pipeline.runtime.errors import UserError
from pipeline.sources import split_names
from pipeline.tracking import catalog
from pipeline.tracking.registry import MADE_BY, ModelVersion

if TYPE_CHECKING:
    from pipeline.evaluation.comparison import Comparison


@dataclass(frozen=True)
class Decision:
    """Whether the alias moves, and why.

    Attributes:
        takes: The newcomer gets it.
        reason: Why, for the console and a tag.
        tags: The numbers behind it, for the version.
    """

    takes: bool
    reason: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def decide(self, objective: Objective, only_significant: bool) -> Self:
        """Itself: there is nothing to measure."""
        return self


@dataclass(frozen=True, eq=False)
class Contest:
    """A newcomer that has to be compared with the champion.

    Attributes:
        title: The champion in words: its version and alias.
        version: Its number.
        champion: What is known of it.
        theirs: The images at its size.
        newcomer: What is known of the newcomer.
        ours: The images at the newcomer's size.
    """

    title: str
    version: str
    champion: catalog.ModelDescription
    theirs: Prepared
    newcomer: catalog.ModelDescription
    ours: Prepared

    def decide(self, objective: Objective, only_significant: bool) -> Decision:
        """Measure both models on the validation split; loads TensorFlow.

        Args:
            objective: What they are compared by.
            only_significant: Whether a better one has to be significantly better.
        """
        from pipeline.evaluation import comparison
        from pipeline.inference import evaluate
        from pipeline.tracking import models

        ours, theirs = (
            evaluate.evaluate(models.load(description.uri), images, split_names.VALIDATION)
            for description, images in ((self.newcomer, self.ours), (self.champion, self.theirs))
        )
        found = comparison.compare(objective, ours.labels, ours.probabilities, theirs.probabilities)
        return self.decide_from(found, only_significant)

    def decide_from(self, found: "Comparison", only_significant: bool) -> Decision:
        """The decision that a comparison of the newcomer with the champion leads to."""
        takes = found.better and (found.significant or not only_significant)
        return Decision(takes, self._reason(found, takes), _tags(found, self.version))

    def _reason(self, found: "Comparison", takes: bool) -> str:
        name = found.objective.name
        lower = " (lower is better)" if found.objective.direction == "minimize" else ""
        verdict = "better" if found.better else "not better"
        if found.better and not takes:
            verdict = "better, but not significantly, which register.significant asks for"
        sizes = sorted({self.ours.image_size, self.theirs.image_size})
        each = f", each model at its own size ({' and '.join(map(str, sizes))} px)" if len(sizes) > 1 else ""
        seen = (
            ""
            if self.champion.data_digest == self.theirs.digest
            else "; that one was trained on other images or another split, and may have seen some of these"
        )
        return (
            f"{verdict}: {name} {found.value:.4f} against {found.other:.4f} of {self.title}{lower}, on the "
            f"same {found.images:,} validation images{each}; the difference is "
            f"{'' if found.significant else 'not '}significant ({found.test}, p = {found.p_value:.2g}){seen}"
        )


def find(
    champion: ModelVersion | None,
    alias: str,
    newcomer: catalog.ModelDescription,
    images: "Prepared | UserError",
    prepare: Callable[[int], Prepared],
) -> Decision | Contest:
    """The contest that decides on the alias, or the decision where none is needed, or none is possible.

    Args:
        champion: The version that has the alias.
        alias: Its name.
        newcomer: The model that may get it.
        images: Those that the newcomer was trained on, or why they cannot be prepared.
        prepare: Prepares the same images, split alike, at a size in px.

    Raises:
        UserError: The images are needed, and cannot be prepared.
    """
    if champion is None:
        return Decision(True, f"there was no {alias}")
    title, uri = f"version {champion.version}, the {alias}", f"models:/{champion.name}/{champion.version}"
    try:
        description = catalog.look_up(uri)
    except catalog.ModelNotFound:
        return Decision(True, f"{title}, is in the registry alone: its model was deleted")
    except catalog.ForeignModel as error:
        return Decision(
            False, f"{title}, cannot be compared: {error}; set another register.name or register.alias"
        )
    if description.run_id == newcomer.run_id:
        if MADE_BY in champion.tags:
            return Decision(True, f"it is the {alias} already")
        return Decision(True, f"{title}, was made by hand of the same network; this one takes encoded images")
    if set(description.classes) != set(newcomer.classes):
        mismatch = catalog.class_mismatch(description.classes, newcomer.classes, alias, "new model")
        return Decision(
            False,
            f"{title}, cannot be compared: {mismatch}; set another register.name",
        )
    if isinstance(images, UserError):
        raise images
    if description.image_size != images.image_size:
        print(f"{title}, takes images of {description.image_size} px, and is measured on these:", flush=True)
    theirs = images if description.image_size == images.image_size else prepare(description.image_size)
    if theirs.names != images.names or not np.array_equal(theirs.splits, images.splits):
        raise UserError("the images of data.source changed while they were prepared; rerun the same command")
    return Contest(title, str(champion.version), description, theirs, newcomer, images)


def _tags(found: "Comparison", champion: str) -> dict[str, str]:
    return {
        "compared_with_version": champion,
        "compared_images": str(found.images),
        "compared_value": repr(found.value),
        "compared_champion_value": repr(found.other),
        "compared_p_value": repr(found.p_value),
        "compared_by": found.test,
    }
