"""The registered model as it is served: in this process, in a fresh one, and behind MLflow's own server."""

import base64
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from conftest import ROOT, Project, free_port, predictions
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import DataType
from PIL import Image

from pipeline.sources import sample
from pipeline.sources.images import decode, resize
from pipeline.tracking import catalog, models
from served_image_classifier.classifier import Classifier, save

pytestmark = pytest.mark.slow

NAME = "models:/dogs-vs-cats@champion"
PROBABILITIES = ["cat", "dog"]


def encoded(label: str, number: int, kind: str = "PNG", **options) -> bytes:
    """A drawn image of the built-in sample, in its full size."""
    file = io.BytesIO()
    sample.draw(label, number).save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A small PNG that says it has 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6
PICTURES = [
    encoded("cat", 1),
    encoded("dog", 2, "JPEG"),
    encoded("cat", 3, "JPEG", exif=UPRIGHT),
    encoded("dog", 4, "GIF"),
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Project:
    """A project in which a tiny sweep has ended, and its best is registered."""
    project = Project(tmp_path_factory.mktemp("served"))
    arguments = (
        "--data.limit=120", "--data.image_size=32", "--train.epochs=2", "--sweep.workers=1",
        '--sweep.grid={"activation":["tanh"]}',
    )  # fmt: skip
    for step, options in (("sweep", arguments), ("register", ())):
        result = project.run(step, *options)
        assert result.returncode == 0, result.stderr
    return project


@pytest.fixture(scope="module")
def model(swept: Project) -> mlflow.pyfunc.PyFuncModel:
    mlflow.set_tracking_uri(swept.uri)
    yield mlflow.pyfunc.load_model(NAME)
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def address(swept: Project, tmp_path_factory) -> Iterator[str]:
    """MLflow's own server, in an empty folder, with no way to this checkout."""
    port, folder = free_port(), tmp_path_factory.mktemp("empty")
    variables = {key: value for key, value in swept.environment().items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", NAME, "--env-manager", "local"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"],
            cwd=folder,
            env={
                **variables,
                "MLFLOW_TRACKING_URI": swept.uri,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while not answers(address):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
    yield f"{address}/invocations"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/ping", timeout=1).ok
    except requests.RequestException:
        return False


def as_text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def table(*texts) -> dict:
    return {"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}}


def ask(address: str, request: dict) -> pd.DataFrame:
    response = requests.post(address, json=request, timeout=60)
    assert response.status_code == 200, response.text
    refuse = {"parse_constant": lambda name: pytest.fail(f"{name} is no JSON")}
    return pd.DataFrame(json.loads(response.text, **refuse)["predictions"])


def test_model_carries_what_it_needs(swept, model):
    client = MlflowClient(swept.uri)
    version = client.get_model_version_by_alias("dogs-vs-cats", "champion")
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert logged.name == "served"
    folder = Path(logged.artifact_location.removeprefix("file://"))
    assert [path.name for path in (folder / "code").iterdir()] == ["served_image_classifier"]
    requirements = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in requirements} == {
        "mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow",
    }  # fmt: skip
    assert all("==" in line for line in requirements)
    assert model.metadata.metadata["classes"] == PROBABILITIES
    (column,) = model.metadata.signature.inputs.inputs
    assert (column.name, column.type, column.required) == ("image", DataType.binary, True)
    assert model.metadata.signature.outputs.input_names() == ["label", "cat", "dog", "error"]
    assert list(model.predict(model.input_example)["error"]) == [""]


def test_answers_are_those_that_evaluate_recorded(swept, model):
    """From the encoded images: the model's own decoding and resizing give the pixels that `prepare` had."""
    best = MlflowClient(swept.uri).search_runs(["0"], "tags.step = 'sweep'")[0].data.tags["best_run_id"]
    folder = Path(MlflowClient(swept.uri).get_run(best).info.artifact_uri.removeprefix("file://"))
    recorded = predictions(folder / "report")
    images = [encoded(label, int(n)) for label, n in (row["name"].split(".")[:2] for row in recorded)]
    answer = model.predict(pd.DataFrame({"image": images}))
    assert list(answer.columns) == ["label", "cat", "dog", "error"]
    assert list(answer["label"]) == [row["prediction"] for row in recorded]
    expected = [[row["cat"], row["dog"]] for row in recorded]
    assert answer[PROBABILITIES].to_numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert result_of_evaluate(swept, "validation") == recorded


def result_of_evaluate(swept: Project, split: str) -> list[dict]:
    result = swept.run("evaluate", f"--evaluate.split={split}")
    assert result.returncode == 0, result.stderr
    (run,) = MlflowClient(swept.uri).search_runs(["0"], "tags.step = 'evaluate'")
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return predictions(folder / split)


def test_bytes_arrays_and_http_give_the_same_answers(model, address):
    frame = model.predict(pd.DataFrame({"image": PICTURES}))
    assert list(frame["error"]) == [""] * 4
    assert frame[PROBABILITIES].sum(axis=1).to_numpy() == pytest.approx(np.ones(4))
    pixels = np.stack([resize(decode(image), 32) for image in PICTURES])
    arrays = model.get_raw_model().predict(pixels)
    pd.testing.assert_frame_equal(arrays, frame)
    texts = [as_text(image) for image in PICTURES]
    requests_of_the_same = [
        table(*texts),
        {"dataframe_records": [{"image": text} for text in texts]},
        {"instances": [{"image": text} for text in texts]},
        {"inputs": {"image": texts}},
    ]
    for request in requests_of_the_same:
        served = ask(address, request)
        assert list(served.columns) == list(frame.columns)
        assert list(served["label"]) == list(frame["label"])
        assert served[PROBABILITIES].to_numpy() == pytest.approx(frame[PROBABILITIES].to_numpy(), abs=1e-6)


def test_command_of_the_document_is_answered(address, tmp_path):
    document = (ROOT / "docs/serving.md").read_text()
    (command,) = re.findall(r"^```bash\n(echo .*?)^# ", document, re.DOTALL | re.MULTILINE)
    sample.draw("cat", 1).save(tmp_path / "cat.jpg")
    command = command.replace("http://127.0.0.1:5001/invocations", address)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    (answer,) = json.loads(done.stdout)["predictions"]
    assert list(answer) == ["label", "cat", "dog", "error"]
    assert answer["cat"] + answer["dog"] == pytest.approx(1)


def test_pixels_of_any_size_are_resized_as_prepare_does(model):
    large = np.asarray(sample.draw("cat", 5).resize((75, 50)))
    small = resize(Image.fromarray(large), 32)
    classify = model.get_raw_model().predict
    pd.testing.assert_frame_equal(classify(large[None]), classify(small[None]))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2), np.uint8), r"shape \(2, 2\)"),
        (np.zeros((1, 0, 9, 3), np.uint8), r"shape \(1, 0, 9, 3\)"),
        (np.zeros((1, 9, 9, 3)), "an array of float64"),
        (np.zeros((0, 9, 9, 3), np.uint8), "got no images"),
    ],
)
def test_arrays_that_hold_no_images_are_refused(model, array, reason):
    with pytest.raises(MlflowException, match=reason):
        model.get_raw_model().predict(array)


def test_bad_image_does_not_lose_the_others(model, address):
    good, expected = PICTURES[0], model.predict(pd.DataFrame({"image": PICTURES[:1]}))["cat"][0]
    bad = [b"no image", bomb(), good[:300], b"", None]
    frame = model.predict(pd.DataFrame({"image": [*bad, good]}, index=list("abcdef")))
    assert list(frame.index) == list("abcdef")
    assert list(frame["label"].isna()) == [True] * 5 + [False]
    assert frame[PROBABILITIES][:5].isna().all(axis=None)
    assert frame["cat"]["f"] == pytest.approx(expected)
    reasons = ("not an image", "900,000,000 pixels", "truncated", "empty file", "NoneType")
    for error, reason in zip(frame["error"], (*reasons, ""), strict=True):
        assert reason in error
    assert frame["error"]["f"] == ""

    served = ask(address, table("§§", as_text(b"no image"), as_text(good)))
    assert list(served["label"].isna()) == [True, True, False]
    assert served["cat"][2] == pytest.approx(expected)
    assert served["cat"][:2].isna().all()
    assert "not base64" in served["error"][0]


def spelled(image: bytes) -> dict[str, str]:
    """An image as base64 text in every spelling that clients are known to send."""
    text = as_text(image)
    spellings = {
        "with line breaks": base64.encodebytes(image).decode(),
        "without padding": text.rstrip("="),
        "URL-safe": base64.urlsafe_b64encode(image).decode(),
        "URL-safe without padding": base64.urlsafe_b64encode(image).decode().rstrip("="),
        "data URI": f"data:image/png;base64,{text}",
        "data URI without padding": f"data:image/png;charset=utf-8;base64,{text}".rstrip("="),
    }
    assert len({text, *spellings.values()}) == 1 + len(spellings), "an image whose text shows the difference"
    return {"standard": text, **spellings}


def test_base64_is_read_in_every_spelling_and_every_format(model, address):
    image = next(found for n in range(99) if len(found := encoded("cat", n)) % 3)
    expected = model.predict(pd.DataFrame({"image": [image]})).loc[0, PROBABILITIES].to_numpy(float)
    texts = list(spelled(image).values())
    for request in (
        table(*texts),
        {"dataframe_records": [{"image": text} for text in texts]},
        {"instances": [{"image": text} for text in texts]},
        {"instances": texts},
        {"inputs": {"image": texts}},
        {"inputs": texts},
    ):
        served = ask(address, request)
        assert list(served["error"]) == [""] * len(texts), request.keys()
        for row in served[PROBABILITIES].to_numpy(float):
            assert row == pytest.approx(expected, abs=1e-6)
    in_python = model.predict(pd.DataFrame({"image": texts}))
    assert list(in_python["error"]) == [""] * len(texts)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (table(as_text(b"no image")), "not an image"),
        (table(as_text(bomb())), "900,000,000 pixels"),
        (table("this is text!"), "not base64"),
        (table("ä"), "not base64"),
        (table("AAAAA"), "not base64"),
        (table("data:image/svg+xml,<svg/>"), "a data URI that starts 'data:image/svg+xml,'"),
        (table("data:image/png;base64,"), "empty file"),
        (table("https://example.com/cat.jpg"), "not base64"),
        (table(""), "empty file"),
        (table(None), "NoneType, not bytes or base64 text"),
        (table(["x"]), "not base64"),
        (table({"b64": "x"}), "dict, not bytes or base64 text"),
        (table(5), "int64"),
        (table(), "got no images"),
        ({"dataframe_records": []}, "missing inputs ['image']"),
        ({"inputs": []}, "got no images"),
        ({"instances": []}, "got no images"),
        ({"inputs": ["this is text"]}, "not an image"),
        ({"inputs": "this is text"}, "missing inputs ['image']"),
        ({"inputs": {"photo": ["x"]}}, "missing inputs ['image']"),
        ({"inputs": [[1, 2], [3, 4]]}, "get_raw_model().predict also takes a uint8 array"),
        ({"inputs": [[[[0, 0, 255]]]]}, "get_raw_model().predict also takes a uint8 array"),
        ({"dataframe_split": {"columns": ["photo"], "data": [["x"]]}}, "missing inputs ['image']"),
        ({"dataframe_split": [["x"]]}, "must be a dictionary"),
        (["a list"], "list"),
        ({}, "dictionary with input fields"),
    ],
)
def test_refused_with_a_reason(address, request_, reason):
    response = requests.post(address, json=request_, timeout=60)
    assert response.status_code == 400
    assert reason in response.json()["message"]
    assert "Traceback" not in response.text


def test_100_megabytes_are_refused(address):
    response = requests.post(address, json=table("A" * 100_000_000), timeout=120)
    assert response.status_code == 400
    assert "75,000,000 bytes, over the limit of 52,428,800" in response.json()["message"]
    assert len(response.text) < 2000


def test_mlflow_predicts_with_no_checkout(swept, tmp_path):
    """`mlflow models predict` in an empty folder."""
    (tmp_path / "request.json").write_text(json.dumps(table(as_text(PICTURES[0]), as_text(b"none"))))
    variables = {key: value for key, value in swept.environment().items() if key != "PYTHONPATH"}
    command = [
        sys.executable, "-m", "mlflow", "models", "predict", "-m", NAME, "--env-manager", "local",
        "-i", "request.json", "-o", "answer.json",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=variables | {"MLFLOW_TRACKING_URI": swept.uri},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "answer.json").read_text())["predictions"]
    assert first["label"] in PROBABILITIES
    assert second["cat"] is None and "not an image" in second["error"]


def test_model_and_a_users_own_module_named_pipeline_do_not_meet(swept, tmp_path):
    """In a fresh process in a folder with a `pipeline.py`, both before the model is loaded and after."""
    (tmp_path / "pipeline.py").write_text("WHO = 'the user'")
    script = f"""
import importlib, sys, mlflow
import pipeline
mlflow.set_tracking_uri({swept.uri!r})
model = mlflow.pyfunc.load_model({NAME!r})
assert list(model.predict(model.input_example)["error"]) == [""]
del sys.modules["pipeline"]
importlib.invalidate_caches()
assert importlib.import_module("pipeline").WHO == "the user"
ours = {{name: module.__file__ for name, module in sys.modules.items() if name.startswith("served_")}}
assert ours and not any(file.startswith({str(ROOT)!r}) for file in ours.values()), ours
"""
    variables = {key: value for key, value in swept.environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


OLD_MODULE = """
import json
from pathlib import Path
import keras
from pipeline.sources.images import resize

def _load_pyfunc(path):
    raise AssertionError("a process that has this project's package takes its module")
"""


def test_model_registered_with_its_code_under_pipeline_is_loaded_still(swept, model, tmp_path):
    """As `register` wrote models before: loader and code under `pipeline`, and no word on input or size."""
    (registering,) = MlflowClient().search_runs(["0"], "tags.step = 'register'")
    raw = model.get_raw_model()
    save(tmp_path / "classifier", raw.network, raw.classes)
    for name in ("__init__", "data/__init__", "data/images", "tracking/__init__", "tracking/serving"):
        file = tmp_path / "pipeline" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(OLD_MODULE if name == "tracking/serving" else "")
    mlflow.pyfunc.save_model(
        tmp_path / "served",
        loader_module="pipeline.tracking.serving",
        data_path=str(tmp_path / "classifier"),
        code_paths=[str(tmp_path / "pipeline")],
        signature=ModelSignature(outputs=model.metadata.signature.outputs),
        pip_requirements=["mlflow"],
        metadata={key: model.metadata.metadata[key] for key in ("classes", "data_digest")},
        mlflow_model=mlflow.models.Model(run_id=registering.info.run_id),
    )
    before = list(sys.path)
    old = mlflow.pyfunc.load_model(str(tmp_path / "served"))
    sys.path[:] = before
    frame = pd.DataFrame({"image": PICTURES})
    pd.testing.assert_frame_equal(old.predict(frame), model.predict(frame))
    pixels = np.stack([resize(decode(image), 32) for image in PICTURES])
    pd.testing.assert_frame_equal(old.predict(pixels), model.predict(frame))
    for uri in (str(tmp_path / "served"), NAME):
        known = catalog.look_up(uri)
        assert known.image_size == 32
        assert known.run_id == registering.data.tags["registered_run_id"]
        loaded = models.load(uri)
        assert list(loaded.classes) == PROBABILITIES
        answer = loaded.network.predict_on_batch(pixels)
        assert answer == pytest.approx(model.predict(frame)[PROBABILITIES].to_numpy(), abs=1e-6)


def test_classes_named_as_columns_keep_a_column_of_their_own():
    class Fixed:
        input_shape = (None, 8, 8, 3)

        def predict_on_batch(self, images):
            return np.tile([0.1, 0.2, 0.3, 0.4], (len(images), 1))

    classifier = Classifier(Fixed(), ["label", "image", "error", "label (class)"])
    answer = classifier.predict(np.zeros((2, 9, 7, 3), np.uint8))
    assert list(answer.columns) == [
        "label", "label (class) (class)", "image", "error (class)", "label (class)", "error",
    ]  # fmt: skip
    assert list(answer["label"]) == ["label (class)"] * 2
    assert answer["label (class)"][0] == 0.4
    assert answer["label (class) (class)"][0] == 0.1


def test_all_bad_is_an_error_in_python_too(model):
    with pytest.raises(MlflowException, match="no image can be used: empty file"):
        model.predict(pd.DataFrame({"image": [b"", b""]}))
