"""Decode, resize and split the pictures of `data.source`; done once for the same pictures and settings.

    mlflow run . -e prepare -P data.source=photos

Reads the pictures; writes one folder under `data.cache`, and logs its dataset, its counts and rejected.csv.
Takes about 3 s for 8,000 small photos on two cores, and under 1 s where nothing changed.
"""

from pipeline.data.prepared import Prepared
from pipeline.params import Params
from pipeline.steps import command


def run(params: Params) -> Prepared:
    """Prepare the pictures and record them in a run."""
    from pipeline.data import prepared
    from pipeline.tracking import artifacts, runs

    with runs.run("prepare", params, {"step": "prepare"}):
        pictures = prepared.prepare(params.data, params.seed)
        artifacts.log_prepared(pictures, params.data.source)
    return pictures


def main() -> None:
    """Parse the command line and prepare."""
    command(run)


if __name__ == "__main__":
    main()
