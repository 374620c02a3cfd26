"""Make the best model a version of a registered model; it becomes the champion where it beats the last one.

    mlflow run . -e register

Takes the best cell of the newest finished sweep, or of `register.run_id` (a sweep, a cell or a training).
What is registered is built from that run's network, and takes pictures of any kind and size
(pipeline/tracking/serving.py). The alias moves only where the new version beats the one that has it, by the
metric that ranked the cells, on the same validation pictures; the reason is printed, and tagged on the
version.
"""

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.quiet import importing_tensorflow
from pipeline.steps import command


def run(params: Params):
    """Register a model; returns its version in MLflow's registry."""
    from pipeline.tracking import registry, runs

    run_id = _best(params.register_.run_id)
    with importing_tensorflow():
        from pipeline.tracking import models
    uri = models.of_run(run_id)
    name, alias = params.register_.name, params.register_.alias
    with runs.run("register", params, {"step": "register", "registered_run_id": run_id}) as own_id:
        champion = registry.champion(name, alias)
        takes, reason = _verdict(params, run_id, uri, champion)
        version = registry.version_of(name, run_id)
        if version is None:
            served = models.log_served(own_id, models.load(uri))
            version = registry.add(name, served, run_id, _description(run_id, uri), _tags(run_id, uri))
        registry.set_tags(version, {"champion_reason": reason})
        if takes:
            registry.set_alias(name, alias, version)
        runs.set_tags({"registered_version": f"{name}/{version.version}", "champion_reason": reason})
    print(f"version {version.version} of {name} is run {run_id}")
    print(f"models:/{name}@{alias} is {f'version {version.version}' if takes else 'unchanged'}: {reason}")
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


def _verdict(params: Params, run_id: str, uri: str, champion) -> tuple[bool, str]:
    """Whether a run's model takes the alias from the champion, and why.

    Both are measured here and now on the validation pictures of the run, by the metric that ranked it.
    """
    from pipeline import evaluation
    from pipeline.data import prepared, splits
    from pipeline.tracking import models, runs

    alias, run = params.register_.alias, runs.get(run_id)
    metric = run.data.params["sweep.metric"]
    if champion is None or champion.run_id == run_id:
        why = f"there was no {alias}" if champion is None else f"it is the {alias} already"
        return True, f"{why}; {metric} {_scores(run)[metric]:.4f} on the validation split"
    trained = runs.params_of(run_id, params)
    pictures = prepared.prepare(trained.data, trained.seed)
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


def _scores(run) -> dict[str, float]:
    """What a run reports of its best epoch on the validation split."""
    metrics = sorted(run.data.metrics.items())
    return {key.removeprefix("report/"): value for key, value in metrics if key.startswith("report/")}


def _tags(run_id: str, uri: str) -> dict[str, str]:
    from pipeline.tracking import models, runs

    model = models.describe(uri)
    scores = {f"validation_{key}": f"{value:.6f}" for key, value in _scores(runs.get(run_id)).items()}
    return {"classes": ", ".join(model["classes"]), "data_digest": model["data_digest"], **scores}


def _description(run_id: str, uri: str) -> str:
    """The version's description, in Markdown: metrics, classes, data and parameters."""
    from pipeline.tracking import models, runs

    run = runs.get(run_id)
    model = models.describe(uri)
    sections = ("seed", "data", "model", "train")
    params = {key: value for key, value in run.data.params.items() if key.split(".")[0] in sections}
    return "\n".join(
        [
            f"Run `{run.info.run_name}` ({run_id}), best epoch {run.data.tags['best_epoch']}.",
            "",
            f"- classes: {', '.join(model['classes'])}",
            f"- data: `{run.data.params['data.source']}`, digest `{model['data_digest']}`",
            "",
            "| on the validation split | |",
            "| --- | --- |",
            *(f"| {key} | {value:.4f} |" for key, value in _scores(run).items()),
            "",
            "| parameter | |",
            "| --- | --- |",
            *(f"| {key} | {value} |" for key, value in sorted(params.items())),
        ]
    )


def main() -> None:
    """Parse the command line and register."""
    command(run)


if __name__ == "__main__":
    main()
