"""KerasTuner's GridSearch, which keeps each trial's best metrics and weights.

python -m benchmarks.peer_scripts.keras_tuner_grid --photos FOLDER --output FOLDER
"""

import keras
import keras_tuner
from keras.callbacks import History

from benchmarks.peer_scripts import task
from benchmarks.peer_scripts.cells import cells


class Cells(keras_tuner.HyperModel):
    """The cells, as KerasTuner asks for them."""

    def __init__(self, asked: task.Task):
        super().__init__()
        self.asked = asked

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """A trial's network."""
        return self.asked.build({key: hp.Choice(key, values) for key, values in self.asked.grid.items()})

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *data, **options) -> History:
        """As KerasTuner does by itself; here so that what was trained is recorded."""
        history = model.fit(*data, **options)
        self.asked.record(hp.values, history.history["val_accuracy"])
        return history


def main() -> None:
    """Search the whole grid."""
    asked = task.from_command_line("KerasTuner GridSearch")
    tuner = keras_tuner.GridSearch(
        Cells(asked),
        objective="val_accuracy",
        max_trials=len(cells(asked.grid)),
        executions_per_trial=1,
        seed=asked.params.seed,
        directory=asked.output,
        project_name="grid",
    )
    tuner.search(*asked.training, **asked.fit)
    asked.finish()


if __name__ == "__main__":
    main()
