"""Decode, resize and split the images of `data.source`, once for the same images and settings.

    mlflow run . -e prepare -P data.source=photos

Reads the images; writes one folder under `data.cache`; logs the dataset, the counts and rejected.csv.
Takes about 3 s for 8,000 small photos on two cores, and under 1 s if nothing changed.
"""

from pipeline.config.params import Params
from pipeline.dataset.prepare import Prepared
from pipeline.steps import command


def run(params: Params) -> Prepared:
    """Prepare the images and record the dataset in a run."""
    from pipeline.dataset import prepare
    from pipeline.tracking import artifacts, runs

    with runs.run("prepare", params, {"step": "prepare"}):
        prepared = prepare.prepare(params.data, params.seed)
        artifacts.log_prepared(prepared, params.data.source)
    return prepared


def main() -> None:
    """Parse the command line and prepare."""
    command(run)


if __name__ == "__main__":
    main()
