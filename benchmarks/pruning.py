"""What pruning costs and loses: the default grid in full and pruned, on real photos, over three seeds.

    python -m benchmarks.pruning ../shared/data/dogs-vs-cats-8k.zip --folder /tmp/pruning

Each sweep is the command itself, in a folder of its own; rerun the same command to resume. Prints for
each seed the epochs that the pruned sweep trained, as a fraction of the full one's, and by how many points of
validation accuracy its winner is behind the full grid's winner. Takes about an hour on two cores.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient

ROOT = Path(__file__).parents[1]


def sweep(folder: Path, source: Path, arguments: list[str]) -> tuple[int, float, str]:
    """Run a sweep; returns how many epochs it trained, and its winner's accuracy and name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    subprocess.run(
        [sys.executable, "-m", "pipeline.steps.sweep", f"--data.source={source}", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT)},
        check=True,
        stdout=(folder / "log.txt").open("a"),
    )
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (parent,) = client.search_runs(["0"], "tags.step = 'sweep'")
    cells = client.search_runs(["0"], "tags.step = 'cell'", max_results=1000)
    best = client.get_run(parent.data.tags["best_run_id"])
    epochs = sum(int(run.data.tags["epochs"]) for run in cells)
    return epochs, best.data.metrics["report/accuracy"], best.info.run_name


def main() -> None:
    """Compare both sweeps for each seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="a zip or a folder of labelled photos")
    parser.add_argument("--folder", type=Path, required=True, help="where the sweeps' stores are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pruner", choices=["median", "hyperband"], default="median")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    common = [
        f"--data.limit={options.images}",
        f"--data.image_size={options.image_size}",
        f"--train.epochs={options.epochs}",
    ]
    print("seed  epochs in full  pruned  fraction  best in full  pruned  points behind", flush=True)
    for seed in options.seeds:
        folder = options.folder / str(seed)
        arguments = [*common, f"--seed={seed}"]
        full, best, _ = sweep(folder / "full", options.source.absolute(), arguments)
        pruned, found, _ = sweep(
            folder / options.pruner,
            options.source.absolute(),
            [*arguments, f"--sweep.pruner={options.pruner}"],
        )
        print(
            f"{seed:>4}  {full:>14}  {pruned:>6}  {pruned / full:>8.2f}  {best:>12.4f}  {found:.4f}  "
            f"{100 * (best - found):>13.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
