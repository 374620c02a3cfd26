"""Ray Tune on two workers of one CPU each, which keeps each trial's metrics.

python -m benchmarks.peer_scripts.ray_tune --photos FOLDER --output FOLDER
"""

from typing import Any

import keras
import ray
from ray import tune

from benchmarks.peer_scripts import task

WORKERS = 2


def train(cell: dict[str, Any], asked: task.Task) -> None:
    """Train one cell, in a worker."""
    report = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: tune.report(dict(logs)))
    asked.build(cell).fit(*asked.training, **asked.fit, callbacks=[report])


def main() -> None:
    """Train every cell, two at once."""
    asked = task.from_command_line("Ray Tune on two workers")
    # Unix sockets lie in this folder, and their paths may have some 100 characters.
    ray.init(num_cpus=WORKERS, include_dashboard=False, _temp_dir=str(asked.output / "ray"))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, asked=asked), {"cpu": 1}),
        param_space={key: tune.grid_search(values) for key, values in asked.grid.items()},
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", max_concurrent_trials=WORKERS),
        run_config=tune.RunConfig(name="grid", storage_path=str(asked.output / "results"), verbose=0),
    )
    for result in tuner.fit():
        if result.error:
            raise result.error
        asked.record(result.config, result.metrics_dataframe["val_accuracy"].tolist())
    asked.finish()
    ray.shutdown()


if __name__ == "__main__":
    main()
