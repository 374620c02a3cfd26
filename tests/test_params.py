"""The parameters: what is in force, and what is said of a mistake."""

from pathlib import Path
from typing import get_args

import keras
import pytest
import yaml

from pipeline import params
from pipeline.arguments import help_text, load
from pipeline.errors import UserError

ROOT = Path(__file__).parents[1]
DEFAULTS = ROOT / "params.yaml"


def read(*arguments: str) -> params.Params:
    return load(arguments, DEFAULTS)


def message(*arguments: str) -> str:
    with pytest.raises(UserError) as error:
        read(*arguments)
    return str(error.value)


def test_defaults_are_those_of_the_file():
    flat = read().flat()
    raw = yaml.safe_load(DEFAULTS.read_text())
    assert flat["train.learning_rate"] == raw["train"]["learning_rate"] == 0.01
    assert flat["sweep.grid.activation"] == ("swish", "tanh", "leaky_relu", "relu")
    assert "sweep.grid.dropout" not in flat
    assert flat["register.name"] == "dogs-vs-cats"


def test_command_line_stands_over_the_named_file_and_that_over_the_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {epochs: 7, batch_size: 8}\n")
    flat = read("--params", str(file), "--train.epochs", "9").flat()
    assert (flat["train.epochs"], flat["train.batch_size"], flat["train.momentum"]) == (9, 8, 0.9)


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--train.learning_rate=1e-3", "train.learning_rate", 0.001),
        ("--model.bias_initializer=-1e-3", "model.bias_initializer", -0.001),
        ("--data.limit=null", "data.limit", None),
        ("--data.source=2024", "data.source", "2024"),
        ("--data.source=C:/my pictures, new=1", "data.source", "C:/my pictures, new=1"),
        ("--train.augment=true", "train.augment", True),
        ('--train.schedule={"start": 3}', "train.schedule.start", 3),
        ("--sweep.grid.learning_rate=[0.1, 0.01]", "sweep.grid.learning_rate", (0.1, 0.01)),
        ('--sweep.grid.activation=["relu"]', "sweep.grid.activation", ("relu",)),
        ("--sweep.grid.schedule.factor=[0.1, 0.5]", "sweep.grid.schedule.factor", (0.1, 0.5)),
    ],
)
def test_values_from_the_command_line(argument, key, value):
    assert read(argument).flat()[key] == value


def test_one_list_of_the_grid_leaves_the_others():
    grid = read("--sweep.grid.learning_rate=[0.1]").sweep.grid.values()
    assert grid["learning_rate"] == (0.1,)
    assert len(grid["activation"]) == 4


def test_whole_grid_replaces_the_files(tmp_path):
    assert read('--sweep.grid={"batch_size":[16,64],"dropout":[0.3,0.5]}').sweep.grid.values() == {
        "batch_size": (16, 64),
        "dropout": (0.3, 0.5),
    }
    file = tmp_path / "mine.yaml"
    file.write_text("sweep: {grid: {momentum: [0.5, 0.9]}}\n")
    assert read("--params", str(file)).sweep.grid.values() == {"momentum": (0.5, 0.9)}


def test_cell_stands_over_model_and_train():
    cell = read().with_cell({"activation": "tanh", "batch_size": 8, "schedule.start": 2})
    assert (cell.model.activation, cell.train.batch_size, cell.train.schedule.start) == ("tanh", 8, 2)
    assert cell.data == read().data
    assert cell.sweep.grid.values() == read().sweep.grid.values()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--train.epoch=3", ["train.epoch (command line)", "unknown key", "train.epochs?"]),
        ("--epochs=3", ["unknown key", "train.epochs?"]),
        ("--sweep.grid.learning_rat=[1]", ["sweep.grid.learning_rate?"]),
        ("--sweep.grid.colour=[1]", ["sweep.grid.colour", "unknown key"]),
        ("--train.epochs=three", ["train.epochs (command line)", "'three'", "whole number from 1"]),
        ("--train.epochs=0", ["'0'", "whole number from 1"]),
        ("--train.learning_rate=0", ["train.learning_rate", "number above 0"]),
        ("--train.learning_rate=nan", ["train.learning_rate", "'nan'"]),
        ("--train.augment=maybe", ["'maybe'", "true or false"]),
        ("--data.validation=1", ["number above 0 below 1"]),
        ("--data.validation=0.9", ["validation (0.9)", "test (0.2)", "below 1"]),
        ("--model.activation=Relu", ["'Relu'", "did you mean relu?", "tanh"]),
        ("--model.name=resnet", ["model.name", "'resnet'", "simple_cnn"]),
        ("--sweep.grid.dropout=[]", ["sweep.grid.dropout", "empty list"]),
        ("--sweep.grid.dropout=[0.3,0.30]", ["sweep.grid.dropout", "0.3 stands twice"]),
        ("--sweep.grid.dropout=[1.5]", ["sweep.grid.dropout", "1.5", "below 1"]),
        ('--sweep.grid.activation=["reluu"]', ["'reluu'", "did you mean relu?"]),
        ("--sweep.grid.dropout=[0.3", ["sweep.grid.dropout", "'[0.3'", "JSON"]),
        ("--sweep.grid={}", ["sweep.grid", "no key"]),
        ("--sweep.grid=3", ["sweep.grid (command line)", "3"]),
        ("--params=nowhere.yaml", ["nowhere.yaml", "No such file"]),
        ("train.epochs=3", ["'train.epochs=3'", "--key value"]),
        ("--train.epochs", ["got no value"]),
    ],
)
def test_mistakes_on_the_command_line(argument, words):
    text = message(argument)
    assert all(word in text for word in words), text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("trian: {epochs: 3}", ["trian", "mine.yaml", "unknown key"]),
        ("train: {epoch: 3}", ["train.epoch (", "mine.yaml", "train.epochs?"]),
        ("train: {epochs: three}", ["train.epochs (", "mine.yaml", "'three'"]),
        ("train: {epochs: true}", ["train.epochs", "whole number"]),
        ("train: 3", ["train", "mine.yaml", "section"]),
        ("data: {source: 3}", ["data.source", "3", "text"]),
        ("- 1", ["mine.yaml", "sections"]),
        ("a: [", ["mine.yaml", "no valid YAML"]),
        ("sweep: {grid: {colour: [1]}}", ["sweep.grid.colour", "unknown key"]),
    ],
)
def test_mistakes_in_the_file(tmp_path, content, words):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    text = message(f"--params={file}")
    assert all(word in text for word in words), text


def test_every_mistake_is_told_at_once():
    text = message("--train.epochs=0", "--data.test=2")
    assert len(text.splitlines()) == 2


def test_params_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        read().train.epochs = 3


def test_every_key_stands_in_the_file_with_its_meaning():
    """The comments of params.yaml are the schema's descriptions, and no key is in only one of them."""
    lines = DEFAULTS.read_text().splitlines()
    for key, field in params.leaves(params.Params):
        if key.startswith(params.GRID):
            continue
        name = key.rsplit(".", 1)[-1]
        assert any(line.strip().startswith(f"{name}:") and field.description in line for line in lines), (
            f"{key}: {field.description}"
        )


def test_help_has_every_key_with_default_meaning_and_range():
    text = help_text(yaml.safe_load(DEFAULTS.read_text()))
    for key, field in params.leaves(params.Params):
        if not key.startswith(params.GRID):
            assert f"--{key} " in text
            assert field.description in text
    assert "--train.batch_size 32\n    pictures per step\n    allowed: whole number from 1\n" in text


def test_names_are_keras_own():
    for name in get_args(params.Activation):
        assert callable(keras.activations.get(name))
    for name in get_args(params.KernelInitializer):
        initializer = keras.initializers.get({"class_name": name, "config": {"seed": 1}})
        assert isinstance(initializer, keras.initializers.Initializer)
