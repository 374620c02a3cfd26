"""The least that trains the cells: Keras's `fit` in a loop. It keeps nothing.

python -m benchmarks.peer_scripts.bare_fit --photos FOLDER --output FOLDER
"""

from benchmarks.peer_scripts import task
from benchmarks.peer_scripts.cells import cells


def main() -> None:
    """Train every cell, one after the other."""
    asked = task.from_command_line("fit in a loop")
    for cell in cells(asked.grid):
        history = asked.build(cell).fit(*asked.training, **asked.fit)
        asked.record(cell, history.history["val_accuracy"])
    asked.finish()


if __name__ == "__main__":
    main()
