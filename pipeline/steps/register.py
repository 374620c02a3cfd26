"""Register the best model; it becomes the champion if it beats the current one.

    mlflow run . -e register

Reads the best cell of the newest sweep, or the model of `register.run_id` (a sweep, a cell or a training).
Fails if the newest sweep is unfinished; with the sweep's run as `register.run_id`, its best finished cell is
registered. The registered model wraps that run's network and takes encoded images of any size
(served_image_classifier/). The model card is logged to this step's run (`card/`) and becomes the version's
description. The alias moves only if the new version beats the champion, by the metric that ranked the cells,
on the same validation images, each model at its own input size (`inference.gate`). The reason, with a paired
test, is printed and tagged on the version. Takes some 20 s.
"""

from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.evaluation.objective import Objective
from pipeline.runtime.console import warn
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import importing_tensorflow
from pipeline.steps import command

if TYPE_CHECKING:
    from pipeline.dataset.prepare import Prepared
    from pipeline.reports.card_facts import Facts
    from pipeline.tracking.registry import ModelVersion


def run(params: Params) -> "ModelVersion":
    """Register a model; returns its version in MLflow's registry.

    Raises:
        UserError: There is no model to register, or it cannot be compared with the champion.
    """
    from pipeline.inference import gate, training_data
    from pipeline.tracking import catalog, registry, runs

    run_id = _best(params.register_.run_id)
    model_info = catalog.look_up(catalog.of_run(run_id))
    name, alias = params.register_.name, params.register_.alias
    with runs.run("register", params, {"step": "register", "registered_run_id": run_id}) as own_id:
        images = _images(run_id, params)
        champion = registry.champion(name, alias)

        def prepare_at(image_size: int) -> "Prepared":
            return training_data.prepare_as_trained(run_id, params, image_size)

        contest = gate.find(champion, alias, model_info, images, prepare_at)
        with importing_tensorflow():
            from pipeline.reports import collect_card
            from pipeline.tracking import models
        facts = collect_card.facts(run_id, model_info.data_digest, images)
        decision = contest.decide(Objective(facts.metric), params.register_.significant)
        version = _version(name, run_id)
        if version is None:
            served = models.log_served(own_id, models.load(model_info.uri))
            version = registry.add(name, served, run_id, own_id)
        _log_card(facts, images, version, own_id)
        tags = {"champion_reason": decision.reason, "card_run_id": own_id, **decision.tags}
        registry.set_tags(version, _tags(facts) | tags)  # of an existing version, too
        if decision.takes:
            registry.set_alias(name, alias, version)
        runs.set_tags({"registered_version": f"{name}/{version.version}", "champion_reason": decision.reason})
    print(f"version {version.version} of {name}: model of run {run_id}")
    moved = f"version {version.version}" if decision.takes else "unchanged"
    print(f"models:/{name}@{alias} is {moved}: {decision.reason}")
    print(f"model card: card/model_card.md of run {own_id}")
    return version


def _best(run_id: str | None) -> str:
    """The run whose model is registered: the best cell of a sweep, a cell, or a training."""
    from pipeline.sweep import selection

    found = selection.select(run_id, "register.run_id", "sweep")
    if found is None:
        raise UserError(
            "there is no sweep to register from; run `mlflow run . -e sweep` first, or set register.run_id "
            "to the run of a training"
        )
    return found


def _images(run_id: str, params: Params) -> "Prepared | UserError":
    """The dataset of a training, or why it cannot be prepared: a first version needs none."""
    from pipeline.inference import training_data

    try:
        return training_data.prepare_as_trained(run_id, params)
    except UserError as error:
        warn(f"the model card has no images: {error}")
        return error


def _version(name: str, run_id: str) -> "ModelVersion | None":
    """The version that `register` made of a run before; None if its model was deleted."""
    from pipeline.tracking import catalog, registry

    version = registry.version_of(name, run_id)
    if version is not None:
        try:
            catalog.look_up(f"models:/{name}/{version.version}")
        except catalog.ModelNotFound:
            return None
    return version


def _tags(facts: "Facts") -> dict[str, str]:
    """The tags of a version: what it was trained on, how it was ranked, and its scores."""
    scores = facts.validation.scores().items()
    entry = facts.entry
    sweep = (
        {"sweep_run_id": entry.sweep_run_id, "sweep_settled": str(entry.sweep_ended).lower()} if entry else {}
    )
    return sweep | {
        "classes": ", ".join(facts.validation.classes),
        "data_digest": facts.digest,
        "objective": facts.metric,
        "direction": Objective(facts.metric).direction,
        **{f"validation_{key}": f"{value:.6f}" for key, value in scores},
    }


def _log_card(facts: "Facts", images: "Prepared | UserError", version: "ModelVersion", own_id: str) -> None:
    """Log the model card to the active run, and set it as the version's description."""
    from pipeline.reports import card_facts, card_sections, collect_card, model_card
    from pipeline.reports.card_facts import Registered
    from pipeline.tracking import artifacts, catalog, registry

    python, requirements = catalog.requirements_of(version.source or "")
    registered = Registered(version.name, str(version.version), own_id, python, requirements)
    files = {card_facts.CARD: model_card.render(facts, registered).encode()}
    if card_sections.has_sheet(facts) and not isinstance(images, UserError):
        files[card_facts.SHEET] = collect_card.sheet(facts.mistakes, images)
    artifacts.log_files(files, card_facts.FOLDER)
    registry.describe(version, model_card.description(facts, registered, registry.DESCRIPTION_BYTES))


def main() -> None:
    """Parse the command line and register."""
    command(run, logs_models=True)


if __name__ == "__main__":
    main()
