"""Make the best model a version of a registered model; it becomes the champion where it beats the last one.

    mlflow run . -e register

Takes the best cell of the newest sweep, or of `register.run_id` (a sweep, a cell or a training). Where the
newest sweep is unfinished it stops, and says so; named by its run, such a sweep gives its best finished cell.
What is registered is built from that run's network, and takes images of any kind and size
(served_image_classifier/). Its model card, `card/` in this step's run and the version's description, says
what it is, how good, and where it fails; a version that is registered again gets a new one. The alias moves
only where the new version beats the one that has it, by the metric that ranked the cells, on the same
validation images, each model at its own size (`inference.gate`). A paired test says whether the difference is
more than chance; the reason is printed, and tagged on the version with the numbers.
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


def run(params: Params):
    """Register a model; returns its version in MLflow's registry."""
    from pipeline.inference import gate
    from pipeline.tracking import catalog, registry, runs

    run_id = _best(params.register_.run_id)
    known = catalog.look_up(catalog.of_run(run_id))
    name, alias = params.register_.name, params.register_.alias
    with runs.run("register", params, {"step": "register", "registered_run_id": run_id}) as own_id:
        images = _images(run_id, params)
        champion = registry.champion(name, alias)
        contest = gate.find(champion, alias, known, images, lambda size: _prepared(run_id, params, size))
        with importing_tensorflow():
            from pipeline.reports import collect_card
            from pipeline.tracking import models
        facts = collect_card.facts(run_id, known.data_digest, images)
        decision = contest.decide(Objective(facts.metric), params.register_.significant)
        version = _version(name, run_id)
        if version is None:
            served = models.log_served(own_id, models.load(known.uri))
            version = registry.add(name, served, run_id, own_id)
        _log_card(facts, images, version, own_id)
        tags = {"champion_reason": decision.reason, "card_run_id": own_id, **decision.tags}
        registry.set_tags(version, _tags(facts) | tags)  # also of a version that was made of a running sweep
        if decision.takes:
            registry.set_alias(name, alias, version)
        runs.set_tags({"registered_version": f"{name}/{version.version}", "champion_reason": decision.reason})
    print(f"version {version.version} of {name} is run {run_id}")
    moved = f"version {version.version}" if decision.takes else "unchanged"
    print(f"models:/{name}@{alias} is {moved}: {decision.reason}")
    print(f"its model card is card/model_card.md of run {own_id}")
    return version


def _best(run_id: str | None) -> str:
    """The run whose model is registered: the best cell of a sweep, or a run with a model of its own."""
    from pipeline.sweep import selection

    chosen = selection.select(run_id, "register.run_id", "sweep")
    if chosen is None:
        raise UserError(
            "there is no sweep to register from; run `mlflow run . -e sweep` first, or set register.run_id "
            "to the run of a training"
        )
    return chosen


def _images(run_id: str, params: Params) -> "Prepared | UserError":
    """The images that a run was trained on, or why there are none any more: a first version needs none."""
    try:
        return _prepared(run_id, params)
    except UserError as error:
        warn(f"the model card cannot show any images: {error}")
        return error


def _prepared(run_id: str, params: Params, size: int | None = None) -> "Prepared":
    """The images that a run was trained on, split as they were; at another size where one is given."""
    from pipeline.dataset import prepare
    from pipeline.tracking import runs

    trained = runs.params_of(run_id, params)
    if size is not None:
        trained = trained.with_values({"data.image_size": size})
    return prepare.prepare(trained.data, trained.seed)


def _version(name: str, run_id: str):
    """The version that `register` made of a run's model before, where that model is still in the store."""
    from pipeline.tracking import catalog, registry

    version = registry.version_of(name, run_id)
    try:
        return version and catalog.look_up(f"models:/{name}/{version.version}") and version
    except catalog.ModelNotFound:
        return None


def _tags(facts: "Facts") -> dict[str, str]:
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


def _log_card(facts: "Facts", images: "Prepared | UserError", version, own_id: str) -> None:
    """Log the model card to the open run, and make it the version's description."""
    from pipeline.reports import collect_card, model_card
    from pipeline.tracking import artifacts, catalog, registry

    python, requirements = catalog.needs(version.source)
    registered = model_card.Registered(version.name, str(version.version), own_id, python, requirements)
    files = {model_card.CARD: model_card.render(facts, registered).encode()}
    if model_card.has_sheet(facts):
        files[model_card.SHEET] = collect_card.sheet(facts.mistakes, images)
    artifacts.log_files(files, model_card.FOLDER)
    registry.describe(version, model_card.description(facts, registered, registry.DESCRIPTION_BYTES))


def main() -> None:
    """Parse the command line and register."""
    command(run, logs_models=True)


if __name__ == "__main__":
    main()
