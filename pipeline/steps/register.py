"""Make the best model a version of a registered model; it becomes the champion where it beats the last one.

    mlflow run . -e register

Takes the best cell of the newest finished sweep, or of `register.run_id` (a sweep, a cell or a training).
What is registered is built from that run's network, and takes pictures of any kind and size
(served_image_classifier/). Its model card, `card/` in this step's run and the version's description, says
what it is, how good, and where it fails; a version that is registered again gets a new one. The alias moves
only where the new version beats the one that has it, by the metric that ranked the cells, on the same
validation pictures; the reason is printed, and tagged on the version.
"""

from typing import TYPE_CHECKING

from pipeline.console import warn
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.quiet import importing_tensorflow
from pipeline.steps import command

if TYPE_CHECKING:
    from pipeline.data.prepared import Prepared
    from pipeline.facts import Facts


def run(params: Params):
    """Register a model; returns its version in MLflow's registry."""
    from pipeline.tracking import registry, runs

    run_id = _best(params.register_.run_id)
    with importing_tensorflow():
        from pipeline import provenance
        from pipeline.tracking import models
    uri = models.of_run(run_id)
    name, alias = params.register_.name, params.register_.alias
    with runs.run("register", params, {"step": "register", "registered_run_id": run_id}) as own_id:
        pictures = _pictures(run_id, params)
        facts = provenance.facts(run_id, models.describe(uri)["data_digest"], pictures)
        takes, reason = _verdict(params, facts, uri, registry.champion(name, alias), pictures)
        version = registry.version_of(name, run_id)
        if version is None:
            served = models.log_served(own_id, models.load(uri))
            version = registry.add(name, served, run_id, own_id, _tags(facts))
        _log_card(facts, pictures, version, own_id)
        registry.set_tags(version, {"champion_reason": reason, "card_run_id": own_id})
        if takes:
            registry.set_alias(name, alias, version)
        runs.set_tags({"registered_version": f"{name}/{version.version}", "champion_reason": reason})
    print(f"version {version.version} of {name} is run {run_id}")
    print(f"models:/{name}@{alias} is {f'version {version.version}' if takes else 'unchanged'}: {reason}")
    print(f"its model card is card/model_card.md of run {own_id}")
    return version


def _best(run_id: str | None) -> str:
    """The run whose model is registered: the best cell of a sweep, or a run with a model of its own."""
    from pipeline.tracking import runs

    source = runs.get(run_id) if run_id else runs.newest("sweep")
    if source is None:
        raise UserError(
            "there is no finished sweep to register from; run `mlflow run . -e sweep` first, or set "
            "register.run_id to the run of a training"
        )
    if source.data.tags.get("step") == "sweep" and "best_run_id" not in source.data.tags:
        raise UserError(f"the sweep {source.info.run_id} has no finished cell; run it again, or name another")
    return source.data.tags.get("best_run_id", source.info.run_id)


def _pictures(run_id: str, params: Params) -> "Prepared | UserError":
    """The pictures that a run was trained on, or why there are none any more: a first version needs none."""
    from pipeline.data import prepared
    from pipeline.tracking import runs

    try:
        trained = runs.params_of(run_id, params)
        return prepared.prepare(trained.data, trained.seed)
    except UserError as error:
        warn(f"the model card cannot show any pictures: {error}")
        return error


def _verdict(
    params: Params, facts: "Facts", uri: str, champion, pictures: "Prepared | UserError"
) -> tuple[bool, str]:
    """Whether a run's model takes the alias from the champion, and why.

    Both are measured here and now on the validation pictures of the run, by the metric that ranked it.
    """
    from pipeline import evaluation
    from pipeline.data import splits
    from pipeline.tracking import models

    alias, metric = params.register_.alias, facts.params["sweep.metric"]
    if champion is None or champion.run_id == facts.run_id:
        why = f"there was no {alias}" if champion is None else f"it is the {alias} already"
        return True, f"{why}; {metric} {facts.validation.scores()[metric]:.4f} on the validation split"
    if isinstance(pictures, UserError):
        raise pictures
    newcomer, holder = models.load(uri), models.load(f"models:/{champion.name}/{champion.version}")
    if holder.classes != pictures.classes:
        return False, (
            f"version {champion.version}, the {alias}, tells {', '.join(holder.classes)} apart, this one "
            f"{', '.join(pictures.classes)}: set another register.name"
        )
    ours, theirs = (
        evaluation.evaluate(model, pictures, splits.VALIDATION).report.scores()[metric]
        for model in (newcomer, holder)
    )
    seen = (
        "" if holder.data_digest == pictures.digest else ", some of which that one may have been trained on"
    )
    return ours > theirs, (
        f"{'better' if ours > theirs else 'not better'}: {metric} {ours:.4f} against {theirs:.4f} of version "
        f"{champion.version}, on the same validation pictures{seen}"
    )


def _tags(facts: "Facts") -> dict[str, str]:
    scores = facts.validation.scores().items()
    return {
        "classes": ", ".join(facts.validation.classes),
        "data_digest": facts.digest,
        **{f"validation_{key}": f"{value:.6f}" for key, value in scores},
    }


def _log_card(facts: "Facts", pictures: "Prepared | UserError", version, own_id: str) -> None:
    """Log the model card to the open run, and make it the version's description."""
    from pipeline import card, provenance
    from pipeline.tracking import models, registry, runs

    python, requirements = models.needs(version.source)
    registered = card.Registered(version.name, str(version.version), own_id, python, requirements)
    files = {card.CARD: card.whole(facts, registered).encode()}
    if card.has_sheet(facts):
        files[card.SHEET] = provenance.sheet(facts.mistakes, pictures)
    runs.log_files(files, card.FOLDER)
    registry.describe(version, card.description(facts, registered, registry.DESCRIPTION_BYTES))


def main() -> None:
    """Parse the command line and register."""
    command(run, logs_models=True)


if __name__ == "__main__":
    main()
