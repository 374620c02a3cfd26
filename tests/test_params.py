"""The parameters: what is in force, and what is said of a mistake."""

from pathlib import Path
from typing import get_args

import keras
import pytest
import yaml

from pipeline.config import params, schema, sweep_schema
from pipeline.config.command_line import help_text, load
from pipeline.config.fields import leaves
from pipeline.config.search_space import Range
from pipeline.runtime.errors import UserError
from pipeline.sweep.cells import count

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
        ("--data.source=C:/my images, new=1", "data.source", "C:/my images, new=1"),
        ("--train.augment=true", "train.augment", True),
        ('--train.schedule={"start": 3}', "train.schedule.start", 3),
        ("--sweep.grid.learning_rate=[0.1, 0.01]", "sweep.grid.learning_rate", (0.1, 0.01)),
        ('--sweep.grid.activation=["relu"]', "sweep.grid.activation", ("relu",)),
        ("--sweep.grid.schedule.factor=[0.1, 0.5]", "sweep.grid.schedule.factor", (0.1, 0.5)),
        ("--sweep.workers=auto", "sweep.workers", "auto"),
        ("--sweep.workers=3", "sweep.workers", 3),
        ("--sweep.cluster=tcp://10.0.0.1:8786", "sweep.cluster", "tcp://10.0.0.1:8786"),
        ("--sweep.cluster=null", "sweep.cluster", None),
        ("--sweep.workers_per_gpu=2", "sweep.workers_per_gpu", 2),
        ("--sweep.worker_memory=4GiB", "sweep.worker_memory", "4GiB"),
        ("--sweep.worker_memory=0.5 TB", "sweep.worker_memory", "0.5 TB"),
        ("--sweep.worker_memory=800000000B", "sweep.worker_memory", "800000000B"),
        ("--sweep.worker_memory=null", "sweep.worker_memory", None),
        ("--sweep.retries=0", "sweep.retries", 0),
        ("--sweep.cell_timeout=0.5", "sweep.cell_timeout", 0.5),
        ("--sweep.cell_timeout=null", "sweep.cell_timeout", None),
        ("--sweep.pruner=hyperband", "sweep.pruner", "hyperband"),
        ("--sweep.time_budget=3600", "sweep.time_budget", 3600),
        ("--sweep.storage=postgresql://host/studies", "sweep.storage", "postgresql://host/studies"),
        ("--sweep.restart=true", "sweep.restart", True),
        ("--sweep.dry_run=true", "sweep.dry_run", True),
        ('--export.formats=["onnx", "keras"]', "export.formats", ("onnx", "keras")),
        ("--export.formats=onnx", "export.formats", ("onnx",)),
    ],
)
def test_values_from_the_command_line(argument, key, value):
    assert read(argument).flat()[key] == value


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        (
            "postgresql+psycopg2://me@home:p@s/s:word@host:5432/db",
            "postgresql+psycopg2://me@home:***@host:5432/db",
        ),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("sqlite:////home/me@work/a:b@c.db", "sqlite:////home/me@work/a:b@c.db"),
    ],
)
def test_password_of_the_storage_is_not_shown(storage, shown):
    given = read(f"--sweep.storage={storage}")
    assert given.flat()["sweep.storage"] == shown
    assert given.sweep.storage == given.with_cell({"dropout": 0.1}).sweep.storage == storage


RANDOM = ("--sweep.sampler=random", "--sweep.n_trials=5")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_sampler_that_draws_takes_a_number_of_trials(sampler):
    sweep = read(f"--sweep.sampler={sampler}", "--sweep.n_trials=5").sweep
    assert (sweep.sampler, sweep.n_trials) == (sampler, 5)


@pytest.mark.parametrize(
    ("argument", "key", "expected"),
    [
        (
            '--sweep.grid.learning_rate={"low":0.0001,"high":0.1,"log":true}',
            "learning_rate",
            Range(low=0.0001, high=0.1, log=True),
        ),
        ('--sweep.grid.dropout={"low": 0, "high": 0.5}', "dropout", Range(low=0.0, high=0.5)),
        ('--sweep.grid.schedule.start={"low":2,"high":8}', "schedule.start", Range(low=2, high=8)),
        ('--sweep.grid.schedule={"start":{"low":2,"high":8}}', "schedule.start", Range(low=2, high=8)),
        ('--sweep.grid={"batch_size":{"low":8,"high":64}}', "batch_size", Range(low=8, high=64)),
    ],
)
def test_range_from_the_command_line(argument, key, expected):
    drawn = read(*RANDOM, argument)
    value = drawn.sweep.grid.values()[key]
    assert value == expected
    assert type(value.low) is type(value.high) is type(expected.low)
    assert drawn.flat()[f"sweep.grid.{key}"] == expected.model_dump()
    assert drawn.with_cell({key: expected.low}).sweep == drawn.sweep


def test_range_from_the_file_and_its_plain_form(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "sweep:\n"
        "  sampler: tpe\n"
        "  n_trials: 5\n"
        "  grid:\n"
        "    learning_rate: {low: 0.0001, high: 1e-1, log: true}\n"
        "    schedule: {start: {low: 1, high: 9}}\n"
        "    activation: [relu, tanh]\n"
    )
    drawn = read("--params", str(file))
    assert drawn.sweep.grid.values() == {
        "activation": ("relu", "tanh"),
        "learning_rate": Range(low=0.0001, high=0.1, log=True),
        "schedule.start": Range(low=1, high=9, log=False),
    }
    assert {key: value for key, value in drawn.flat().items() if key.startswith(sweep_schema.GRID)} == {
        "sweep.grid.activation": ("relu", "tanh"),
        "sweep.grid.learning_rate": {"low": 0.0001, "high": 0.1, "log": True},
        "sweep.grid.schedule.start": {"low": 1, "high": 9, "log": False},
    }
    # a range is replaced whole: its `log` does not stay
    other = read("--params", str(file), '--sweep.grid.learning_rate={"low":0.2,"high":0.3}')
    assert other.sweep.grid.values()["learning_rate"] == Range(low=0.2, high=0.3, log=False)


LEARNING_RATE = "sweep.grid.learning_rate (command line): got "


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ('learning_rate={"low":0.1,"hihg":1}', [f"{LEARNING_RATE}a range with low, hihg", "low, high"]),
        ('learning_rate={"low":0.1}', [f"{LEARNING_RATE}a range with low", "low, high"]),
        ("learning_rate={}", [f"{LEARNING_RATE}a range with no key", "low, high"]),
        ('learning_rate={"low":1,"high":0.1}', [f"{LEARNING_RATE}low 1 and high 0.1", "below high"]),
        ('learning_rate={"low":1,"high":1}', ["low must be below high"]),
        ('learning_rate={"low":"few","high":1}', [f"{LEARNING_RATE}'few' as low", "number above 0"]),
        ('learning_rate={"low":0.1,"high":true}', [f"{LEARNING_RATE}True as high", "number above 0"]),
        ('learning_rate={"low":null,"high":"x","log":3}', [f"{LEARNING_RATE}None as low"]),
        ('learning_rate={"low":0.1,"high":1,"log":3}', [f"{LEARNING_RATE}3 as log", '"log": false']),
        ('learning_rate={"low":0,"high":1}', [f"{LEARNING_RATE}0 as low", "number above 0"]),
        ('learning_rate={"low":1,"high":Infinity}', [f"{LEARNING_RATE}inf as high"]),
        ('dropout={"low":0,"high":1}', ["sweep.grid.dropout", "got 1 as high", "number from 0 below 1"]),
        ('dropout={"low":0,"high":0.5,"log":true}', ["sweep.grid.dropout", "got low 0", "low above 0"]),
        (
            'batch_size={"low":8,"high":64.5}',
            ["sweep.grid.batch_size", "64.5 as high", "whole number from 1"],
        ),
        ('schedule.start={"low":0,"high":2}', ["sweep.grid.schedule.start", "0 as low", "whole number"]),
        ('activation={"low":1,"high":2}', ["sweep.grid.activation", "{'low': 1, 'high': 2}", "[…] of celu"]),
        ('augment={"low":0,"high":1}', ["sweep.grid.augment", "[…] of auto or true or false"]),
        (
            'early_stopping_patience={"low":1,"high":2}',
            ["sweep.grid.early_stopping_patience", "[…] of whole number from 1"],
        ),
        ('learning_rate=[{"low":0.1,"high":1}]', [LEARNING_RATE, "or a range"]),
        ("learning_rate={low: 0.1, high: 1}", ["'{low: 0.1, high: 1}'", "JSON", '"low": 0.1']),
        ('learning_rate={"low":0.1},{"high":1}', ["sweep.grid.learning_rate", "JSON"]),
    ],
)
def test_bad_range_is_told_in_one_line(argument, words):
    text = message(*RANDOM, f"--sweep.grid.{argument}")
    assert all(word in text for word in words), text
    assert len(text.splitlines()) == 1


def test_bad_range_in_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("sweep: {sampler: tpe, n_trials: 5, grid: {dropout: {low: 0.5, high: 0.1}}}\n")
    text = message(f"--params={file}")
    assert text.startswith(
        f"sweep.grid.dropout ({file}): got low 0.5 and high 0.1, but low must be below high;"
    )
    assert len(text.splitlines()) == 1


def test_range_beside_a_grid_that_is_no_section():
    text = message(*RANDOM, "--sweep.grid=3", '--sweep.grid.dropout={"low":0,"high":0.5}')
    assert text.startswith("sweep.grid (command line): got 3; allowed: a section")


def test_grid_sampler_refuses_a_range():
    assert message('--sweep.grid.learning_rate={"low":0.1,"high":1}') == (
        "sweep.grid.learning_rate is a range; the grid sampler takes lists; "
        "set sweep.sampler to random or tpe, and sweep.n_trials"
    )


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
        ("--sweep.grid.dropout=[0.3,0.30]", ["sweep.grid.dropout", "duplicate value 0.3"]),
        ("--sweep.grid.dropout=[1.5]", ["sweep.grid.dropout", "1.5", "below 1"]),
        ('--sweep.grid.activation=["reluu"]', ["'reluu'", "did you mean relu?"]),
        ("--sweep.grid.dropout=[0.3", ["sweep.grid.dropout", "'[0.3'", "JSON"]),
        ("--sweep.grid={}", ["sweep.grid", "no key"]),
        ("--sweep.grid=3", ["sweep.grid (command line)", "3"]),
        ("--sweep.workers=0", ["sweep.workers (command line)", "'0'", "auto or whole number from 1"]),
        ("--sweep.workers=1.5", ["sweep.workers", "'1.5'", "auto or whole number from 1"]),
        ("--sweep.workers=aut", ["sweep.workers", "'aut'", "did you mean auto?"]),
        ("--sweep.workers=null", ["sweep.workers", "auto or whole number from 1"]),
        ("--sweep.cluster=", ["sweep.cluster", "''", "text or null"]),
        ("--sweep.workers_per_gpu=0", ["sweep.workers_per_gpu", "'0'", "whole number from 1"]),
        ("--sweep.worker_memory=4", ["sweep.worker_memory", "'4'", "text like 4GiB, 500MB or null"]),
        ("--sweep.worker_memory=4gib", ["sweep.worker_memory", "'4gib'"]),
        ("--sweep.worker_memory=4KB", ["sweep.worker_memory", "'4KB'"]),
        ("--sweep.worker_memory=-4GiB", ["sweep.worker_memory", "'-4GiB'"]),
        ("--sweep.worker_memory=0GiB", ["sweep.worker_memory", "'0GiB'"]),
        ("--sweep.worker_memory=0.0GiB", ["sweep.worker_memory", "'0.0GiB'"]),
        ("--sweep.retries=-1", ["sweep.retries", "'-1'", "whole number from 0"]),
        ("--sweep.retries=null", ["sweep.retries", "whole number from 0"]),
        ("--sweep.cell_timeout=0", ["sweep.cell_timeout", "'0'", "number above 0 or null"]),
        ("--sweep.sampler=tpes", ["sweep.sampler", "'tpes'", "grid, random, tpe", "did you mean tpe?"]),
        ("--sweep.sampler=random", ["sweep.n_trials is null", "random sampler", "whole number from 1"]),
        ("--sweep.sampler=tpe", ["sweep.n_trials is null", "tpe sampler", "whole number from 1"]),
        ("--sweep.n_trials=0", ["sweep.n_trials", "'0'", "whole number from 1 or null"]),
        (
            "--sweep.n_trials=5",
            ["sweep.n_trials is 5", "grid sampler", "null, or sweep.sampler random or tpe"],
        ),
        ("--sweep.pruner=mean", ["sweep.pruner", "'mean'", "none, median, hyperband"]),
        ("--sweep.time_budget=inf", ["sweep.time_budget", "'inf'", "number above 0 or null"]),
        ("--sweep.storage=", ["sweep.storage", "''", "text or null"]),
        ("--sweep.restart=2", ["sweep.restart", "'2'", "true or false"]),
        ("--sweep.dry_run=maybe", ["sweep.dry_run", "'maybe'", "true or false"]),
        (
            '--export.formats=["onnxx"]',
            ["export.formats", "'onnxx'", "keras, saved_model, onnx", "mean onnx?"],
        ),
        ('--export.formats=["onnx","onnx"]', ["export.formats", "duplicate value 'onnx'"]),
        ("--export.formats=[]", ["export.formats", "empty list", "keras, saved_model, onnx"]),
        ("--export.images=0", ["export.images", "'0'", "whole number from 1"]),
        ("--export.model=champion", ["export.model", "'champion'", "models:/ID"]),
        ("--register.name=", ["register.name", "got ''", "an empty value"]),
        ("--register.name=a/b", ["register.name", "'a/b'", "without / : ?"]),
        ("--register.name=a:b", ["register.name", "'a:b'", "without / : ?"]),
        ("--register.name=a?b", ["register.name", "'a?b'", "without / : ?"]),
        ("--register.name=..", ["register.name", "'..'", "other than . and .."]),
        (f"--register.name={'n' * 300}", ["register.name", "a name of 300 characters", "up to 256"]),
        ("--register.alias=latest", ["register.alias", "'latest'", "reserved by MLflow"]),
        ("--register.alias=Latest", ["register.alias", "'Latest'", "reserved by MLflow"]),
        ("--register.alias=v1", ["register.alias", "'v1'", "v with a number"]),
        ("--register.alias=my best", ["register.alias", "'my best'", "letters, digits, - and _"]),
        (f"--register.alias={'a' * 256}", ["register.alias", "up to 254"]),
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
        ("sweep: {workers: true}", ["sweep.workers (", "mine.yaml", "got True", "auto or whole number"]),
        ("sweep: {worker_memory: 4}", ["sweep.worker_memory (", "mine.yaml", "got 4", "like 4GiB"]),
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
    assert len(text.splitlines()) == 1


def test_every_mistake_is_told_at_once():
    text = message("--train.epochs=0", "--data.test=2")
    assert len(text.splitlines()) == 2


def test_params_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        read().train.epochs = 3


def test_every_key_stands_in_the_file_with_its_meaning():
    """The comments of params.yaml are the schema's descriptions, and no key is in only one of them."""
    lines = DEFAULTS.read_text().splitlines()
    for key, field in leaves(params.Params):
        if key.startswith(sweep_schema.GRID):
            continue
        name = key.rsplit(".", 1)[-1]
        assert any(line.strip().startswith(f"{name}:") and field.description in line for line in lines), (
            f"{key}: {field.description}"
        )


def test_help_has_every_key_with_default_meaning_and_range():
    text = help_text(yaml.safe_load(DEFAULTS.read_text()))
    for key, field in leaves(params.Params):
        if not key.startswith(sweep_schema.GRID):
            assert f"--{key} " in text
            assert field.description in text
    assert "--train.batch_size 32\n    images per step\n    allowed: whole number from 1\n" in text
    assert 'dropout; […] of number from 0 below 1 or a range {"low": …, "high": …, "log": false}' in text


def test_names_are_keras_own():
    for name in get_args(schema.Activation):
        assert callable(keras.activations.get(name))
    for name in get_args(schema.KernelInitializer):
        initializer = keras.initializers.get({"class_name": name, "config": {"seed": 1}})
        assert isinstance(initializer, keras.initializers.Initializer)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((), 64),
        (("--model.name=vgg16_cam",), 224),
        (("--model.name=small_resnet",), 96),
        (("--model.name=vgg16_cam", "--data.image_size=32"), 32),
    ],
)
def test_auto_is_the_size_that_the_network_prefers(arguments, size):
    drawn = read(*arguments)
    assert drawn.data.image_size == drawn.flat()["data.image_size"] == size


@pytest.mark.parametrize(
    ("arguments", "left_out", "cells"),
    [
        ((), [], 48),
        (("--model.name=small_resnet",), [], 48),
        (("--model.name=transfer",), ["activation", "kernel_initializer", "bias_initializer"], 2),
        (("--model.name=transfer", "--sweep.grid.dropout=[0, 0.5]"), None, 4),
        (("--model.name=vgg16_cam", "--sweep.grid.dropout=[0, 0.5]"), None, 2),
        (('--sweep.grid={"name":["simple_cnn","small_resnet"],"activation":["relu","tanh"]}',), [], 4),
    ],
)
def test_grid_keeps_the_keys_of_its_networks(arguments, left_out, cells):
    own, strangers = read(*arguments).without_unused_grid_keys()
    assert count(own.sweep.grid) == cells
    assert left_out in (None, strangers)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--model.name=vgg16_cam", '--sweep.grid={"activation":["relu","tanh"]}'),
            [
                "activation: not parameters of vgg16_cam",
                "allowed: any key under `train`",
                "fine_tune_layers",
            ],
        ),
        (
            ('--sweep.grid={"name":["simple_cnn","transfer"],"activation":["relu","tanh"]}',),
            ["sweep.grid.activation is not a parameter of transfer", "sweep simple_cnn separately"],
        ),
    ],
)
def test_grid_that_would_train_the_same_twice_is_refused(arguments, words):
    with pytest.raises(ValueError) as error:
        read(*arguments).without_unused_grid_keys()
    assert all(word in str(error.value) for word in words), error.value


def test_epochs_count_fine_tuning_where_there_is_any():
    tuned = ("--train.epochs=3", "--model.fine_tune_epochs=2")
    assert read(*tuned).epochs == 3
    assert read(*tuned, "--model.name=transfer").epochs == 5
    assert read(*tuned, "--model.name=transfer", "--model.weights=none").epochs == 3


@pytest.mark.parametrize("value", ["", "  "])
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("data.source", "allowed: text"),
        ("train.epochs", "allowed: whole number"),
        ("data.limit", "or null"),
        ("sweep.grid", "JSON"),
        ("sweep.grid.learning_rate", "number"),
        ("sweep.storage", "text or null"),
    ],
)
def test_empty_value_as_of_an_unset_shell_variable(key, value, words):
    with pytest.raises(UserError) as raised:
        read(f"--{key}", value)
    assert str(raised.value).startswith(f"{key} (command line): got {value!r}, an empty value")
    assert "shell variable" in str(raised.value) and words in str(raised.value)


def test_empty_value_in_a_file(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("data: {source: ''}")
    with pytest.raises(UserError, match=r"data\.source \(.*own\.yaml\): got '', an empty value"):
        read("--params", str(file))
    with pytest.raises(UserError, match=r"params \(command line\): got ''"):
        read("--params=")
