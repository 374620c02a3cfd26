"""Networks as files for other programs: what is written, that it answers alike, and what is kept."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import keras
import mlflow
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from conftest import ROOT, Project, assert_user_error
from keras import layers
from mlflow import MlflowClient

from pipeline.config.command_line import load
from pipeline.config.schema import ExportFormat
from pipeline.inference import export as exports
from pipeline.inference import export_folder
from pipeline.inference.export_folder import FILES
from pipeline.models import simple_cnn
from pipeline.runtime.errors import UserError
from pipeline.sources import sample
from pipeline.steps import export

CLASSES = ("cat", "dog", "naïve “ox”")


def residual() -> keras.Model:
    """The layers of a mobile network: rescaled by channel, depthwise, residual, padded by one side."""
    images = keras.Input((32, 32, 3), dtype="uint8")
    x = layers.Rescaling([1 / 58, 1 / 57, 1 / 56], offset=[-2.1, -2.0, -1.8])(images)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.ReLU(max_value=6)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    y = layers.Activation("swish")(layers.BatchNormalization()(y))
    x = layers.Add()([x, y])
    x = layers.SeparableConv2D(16, 3, padding="same", activation="leaky_relu")(x)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(len(CLASSES), activation="softmax")(x))


def nested() -> keras.Model:
    """A head on a network of its own, as transfer learning has it."""
    features = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.PReLU(shared_axes=(1, 2))]
    )
    images = keras.Input((20, 20, 3), dtype="uint8", name="pixels")
    x = layers.GlobalMaxPooling2D()(features(layers.Rescaling(1 / 127.5, offset=-1)(images)))
    return keras.Model(images, layers.Dense(len(CLASSES), activation="softmax")(x))


def original() -> keras.Model:
    return simple_cnn.build(load([], ROOT / "params.yaml").model, (16, 16, 3), len(CLASSES), 1)


def unsettled(build: Callable[[], keras.Model]) -> keras.Model:
    """A network with no bias, scale or statistic at its initial value, where a mistake would not show."""
    keras.utils.set_random_seed(1)
    network = build()
    generator = np.random.default_rng(2)
    for variable in network.trainable_variables + network.non_trainable_variables:
        if len(variable.shape) == 1 and variable.dtype == "float32":
            variable.assign(variable + generator.uniform(-0.1, 0.1, variable.shape))
    return network


def images(network: keras.Model, count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *network.input_shape[1:]), dtype=np.uint8)


@pytest.mark.parametrize("build", [original, residual, nested])
def test_every_format_answers_as_the_network_does(tmp_path, build):
    network = unsettled(build)
    other = unsettled(build)
    other.layers[-1].bias.assign_add([0.0, 0.1, 0.0])
    for format, name in FILES.items():
        exports.write(network, CLASSES, format, tmp_path / name)
        for count in (1, 7):
            arrays = images(network, count)
            got = exports.answers_of_file(format, tmp_path / name, arrays)
            expected = network.predict_on_batch(arrays)
            assert got.shape == (count, len(CLASSES))
            np.testing.assert_allclose(got, expected, atol=1e-5)
            assert exports.compare(expected, got).same
            assert not exports.compare(other.predict_on_batch(arrays), got).same
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,), (given) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type) == ("images", "tensor(uint8)")
    assert taken.shape == ["batch", *network.input_shape[1:]]
    assert [(one.name, one.shape) for one in given] == [("probabilities", ["batch", len(CLASSES)])]
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)


def test_operation_that_onnx_does_not_know(tmp_path, caplog):
    images = keras.Input((4, 4, 3), dtype="uint8")
    x = layers.Flatten()(keras.ops.erfinv(layers.Rescaling(1 / 300)(images)))
    network = keras.Model(images, layers.Dense(2, activation="softmax")(x))
    with pytest.raises(UserError, match=r"Erfinv.*leave onnx out of export.formats"):
        exports.write(network, ("cat", "dog"), "onnx", tmp_path / "model.onnx")
    assert "Erfinv" not in caplog.text, "told once, by the error"


def test_difference_ties_and_nan():
    expected = np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]], np.float32)
    same = exports.compare(expected, expected + np.float32([[0, 0], [0, 5e-5], [0, 0]]))
    assert same.max_difference == pytest.approx(5e-5, abs=1e-7)
    assert (same.differing_labels, same.same) == (0, True), "the second is a tie"
    # a little difference, but another label where the network is not undecided
    narrow = np.array([[0.50002, 0.49998]], np.float32)
    swapped = exports.compare(narrow, narrow[:, ::-1])
    assert swapped.max_difference == pytest.approx(4e-5, abs=1e-7)
    assert (swapped.differing_labels, swapped.same) == (1, False)
    assert not exports.compare(expected, expected + np.float32(2e-4)).same
    # NaN, where the first class is the network's own: no label differs
    assert not exports.compare(expected[:1], np.full((1, 2), np.nan, np.float32)).same


def test_batches_are_of_several_sizes():
    sizes = []

    def network(batch: np.ndarray, training: bool) -> tf.Tensor:
        assert training is False
        sizes.append(len(batch))
        return tf.constant(batch.reshape(len(batch), -1)[:, :2], tf.float32)

    images = np.arange(40 * 12, dtype=np.uint16).astype(np.uint8).reshape(40, 2, 2, 3)
    np.testing.assert_array_equal(exports.answers(network, images), images.reshape(40, 12)[:, :2])
    assert sizes == [1, 32, 7]


def test_every_format_has_a_file():
    assert tuple(FILES) == get_args(ExportFormat)


def earlier(folder: Path) -> Path:
    folder.mkdir()
    for name in (export_folder.RECORD, "model.onnx"):
        (folder / name).write_text("earlier")
    return folder


def put_new(output: Path) -> None:
    with export_folder.replacing(output) as folder:
        (folder / "new").write_text("new")


def test_new_folder_takes_the_place_of_an_earlier_export_or_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for output in (earlier(tmp_path / "earlier"), tmp_path / "empty", tmp_path / "deep/er"):
        put_new(output)
        assert [path.name for path in output.iterdir()] == ["new"]
        assert [path for path in output.parent.iterdir() if path.name.startswith(".")] == []


def test_failure_leaves_the_earlier_export(tmp_path):
    output = earlier(tmp_path / "exports")
    with pytest.raises(KeyboardInterrupt), export_folder.replacing(output) as folder:
        (folder / "new").write_text("new")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), export_folder.replacing(output) as folder:
        folder.rmdir()  # so that it cannot be moved when the earlier one has made room
    assert list(tmp_path.iterdir()) == [output]
    assert (output / "model.onnx").read_text() == "earlier"


def test_nothing_else_is_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    (earlier(tmp_path / "with mine") / "mine").write_text("mine")
    (tmp_path / "no record").mkdir()
    (tmp_path / "no record/model.onnx").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for name in ("file", "with mine", "no record"):
        with pytest.raises(UserError, match="was not written by export"):
            put_new(tmp_path / name)
    with (
        pytest.raises(UserError, match="file/below cannot be written"),
        export_folder.disk_errors("file/below"),
    ):
        put_new(tmp_path / "file/below")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_users_get_wrong_is_told_before_tensorflow_is_imported(project):
    result = project.run("export")
    assert_user_error(result, "models:/dogs-vs-cats@champion", "-e register", "export.model")
    (project.path / "exports").mkdir()
    (project.path / "exports/mine.txt").write_text("mine")
    result = project.run("export", "--export.model=models:/nobody@champion")
    assert_user_error(result, "export.output", "was not written by export", "an earlier export")


def runs_of(project: Project) -> list:
    return MlflowClient(project.uri).search_runs(["0"], "tags.step = 'export'")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def artifacts(run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


@pytest.fixture(scope="module")
def exported(with_champion: Project) -> Project:
    """A project whose champion was exported by the real command."""
    result = with_champion.run("export")
    assert (result.returncode, result.stderr) == (0, "")
    for name in FILES:
        assert re.search(rf"^{name} +[\d.]+ +\d\.\de-?\+?\d\d +0 of 12$", result.stdout, re.MULTILINE)
    return with_champion


@pytest.mark.slow
def test_champion_is_exported(exported, monkeypatch, capsys):
    folder = exported.path / "exports"
    assert {path.name for path in folder.iterdir()} == {
        *FILES.values(),
        "classes.json",
        "export.json",
    }
    assert json.loads((folder / "classes.json").read_text()) == ["cat", "dog"]
    (training,) = MlflowClient(exported.uri).search_runs(["0"], "tags.step = 'train'")
    record = json.loads((folder / "export.json").read_text())
    assert (record["model"], record["run_id"]) == ("models:/dogs-vs-cats/1", training.info.run_id)

    run = runs_of(exported)[-1]
    assert content(artifacts(run) / "export") == content(folder)
    assert run.data.tags["exported_run_id"] == training.info.run_id
    figures = ("megabytes", "max_difference", "differing_labels")
    assert run.data.metrics.keys() == {f"export/{format}/{key}" for format in FILES for key in figures}
    for format, name in FILES.items():
        files = [path for path in (folder / name).rglob("*") if path.is_file()] or [folder / name]
        assert (
            run.data.metrics[f"export/{format}/megabytes"] == sum(file.stat().st_size for file in files) / 1e6
        )
        assert run.data.metrics[f"export/{format}/max_difference"] < 1e-5

    # the document's own code, on an image of another size, against the model that is served
    document = (ROOT / "docs/serving.md").read_text()
    snippet = re.search(r"\n## Export\n.*?```python\n(.*?)```", document, re.DOTALL)[1]
    image = sample.draw("cat", 5)
    image.save(exported.path / "cat.jpg", format="PNG")
    monkeypatch.chdir(exported.path)
    exec(snippet, {})
    mlflow.set_tracking_uri(exported.uri)
    model = mlflow.pyfunc.load_model("models:/dogs-vs-cats@champion")
    mlflow.set_tracking_uri(None)
    answer = model.get_raw_model().predict(np.asarray(image)[None]).iloc[0]
    label, probability = capsys.readouterr().out.splitlines()[-1].split()
    assert (label, float(probability)) == (
        answer["label"],
        pytest.approx(answer[["cat", "dog"]].max(), abs=1e-6),
    )


@pytest.mark.slow
def test_file_that_answers_otherwise_is_not_kept(exported, monkeypatch, capsys):
    """In this process, where the tolerance can be made one that no file keeps."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(exported.path)
    before = content(exported.path / "exports")
    (training,) = MlflowClient(exported.uri).search_runs(["0"], "tags.step = 'train'")
    (model,) = training.outputs.model_outputs
    params = load([f"--export.model=models:/{model.model_id}", "--export.formats=onnx", "--export.images=5"])
    mlflow.set_tracking_uri(exported.uri)
    try:
        with (
            monkeypatch.context() as patch,
            pytest.raises(UserError, match="the predictions of onnx differ from the model's"),
        ):
            patch.setattr(exports, "TOLERANCE", -1)
            export.run(params)
        assert "0 of 5" in capsys.readouterr().out
        failed = runs_of(exported)[0]
        assert failed.info.status == "FAILED"
        assert failed.data.metrics["export/onnx/differing_labels"] == 0
        assert not any(artifacts(failed).rglob("*"))
        assert content(exported.path / "exports") == before
        assert not list(exported.path.glob(".exports*"))
        export.run(params)
    finally:
        mlflow.set_tracking_uri(None)
    assert {path.name for path in (exported.path / "exports").iterdir()} == {
        "model.onnx",
        "classes.json",
        "export.json",
    }
