"""Optuna's GridSampler with MLflow's autologging, which keeps each trial's metrics and model in MLflow.

python -m benchmarks.peer_scripts.optuna_autolog --photos FOLDER --output FOLDER
"""

import mlflow
import optuna

from benchmarks.peer_scripts import task
from benchmarks.peer_scripts.cells import cells


def main() -> None:
    """Train every cell, one after the other, each in a run of its own."""
    asked = task.from_command_line("Optuna with mlflow.tensorflow.autolog")
    mlflow.set_tracking_uri(f"sqlite:///{asked.output / 'mlflow.db'}")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("grid", (asked.output / "mlruns").as_uri()))
    mlflow.tensorflow.autolog()

    def objective(trial: optuna.Trial) -> float:
        cell = {key: trial.suggest_categorical(key, values) for key, values in asked.grid.items()}
        with mlflow.start_run():
            mlflow.log_params(cell)
            history = asked.build(cell).fit(*asked.training, **asked.fit)
        asked.record(cell, history.history["val_accuracy"])
        return max(history.history["val_accuracy"])

    study = optuna.create_study(
        storage=f"sqlite:///{asked.output / 'study.db'}",
        study_name="grid",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.GridSampler(asked.grid, seed=asked.params.seed),
    )
    study.optimize(objective, n_trials=len(cells(asked.grid)))
    asked.finish()


if __name__ == "__main__":
    main()
