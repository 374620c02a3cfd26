"""The registered model as it is served: in this process, in a fresh one, and behind MLflow's own server."""

import base64
import csv
import io
import json
import os
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
from conftest import ROOT, Project, free_port
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.data import sample
from pipeline.data.pictures import decode, resize
from pipeline.tracking import serving

pytestmark = pytest.mark.slow

NAME = "models:/dogs-vs-cats@champion"
PROBABILITIES = ["cat", "dog"]


def encoded(label: str, number: int, kind: str = "PNG", **options) -> bytes:
    """A drawn picture of the built-in sample, in its full size."""
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


def as_text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


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
    assert (folder / "code/pipeline/tracking/serving.py").is_file()
    requirements = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in requirements} == {
        "mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow",
    }  # fmt: skip
    assert all("==" in line for line in requirements)
    assert model.metadata.metadata["classes"] == PROBABILITIES
    assert model.metadata.signature.outputs.input_names() == ["label", "cat", "dog", "error"]
    assert list(model.predict(model.input_example)["error"]) == [""]


def test_answers_are_those_that_evaluate_recorded(swept, model):
    """From the encoded pictures: the model's own decoding and resizing give the pixels that `prepare` had."""
    best = MlflowClient(swept.uri).search_runs(["0"], "tags.step = 'sweep'")[0].data.tags["best_run_id"]
    folder = Path(MlflowClient(swept.uri).get_run(best).info.artifact_uri.removeprefix("file://"))
    with (folder / "report/predictions.csv").open() as file:
        recorded = list(csv.DictReader(file))
    pictures = [encoded(label, int(n)) for label, n in (row["name"].split(".")[:2] for row in recorded)]
    answer = model.predict(pd.DataFrame({"image": pictures}))
    assert list(answer.columns) == ["label", "cat", "dog", "error"]
    assert list(answer["label"]) == [row["prediction"] for row in recorded]
    expected = [[float(row["cat"]), float(row["dog"])] for row in recorded]
    assert answer[PROBABILITIES].to_numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert result_of_evaluate(swept, "validation") == recorded


def result_of_evaluate(swept: Project, split: str) -> list[dict]:
    result = swept.run("evaluate", f"--evaluate.split={split}")
    assert result.returncode == 0, result.stderr
    (run,) = MlflowClient(swept.uri).search_runs(["0"], "tags.step = 'evaluate'")
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    with (folder / split / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_bytes_pixels_and_http_give_the_same_answers(model, address):
    frame = model.predict(pd.DataFrame({"image": PICTURES}))
    assert list(frame["error"]) == [""] * 4
    assert frame[PROBABILITIES].sum(axis=1).to_numpy() == pytest.approx(np.ones(4))
    pixels = np.stack([resize(decode(picture), 32) for picture in PICTURES])
    arrays = model.predict(pixels)
    pd.testing.assert_frame_equal(arrays, frame)
    texts = [as_text(picture) for picture in PICTURES]
    requests_of_the_same = [
        table(*texts),
        {"dataframe_records": [{"image": text} for text in texts]},
        {"instances": [{"image": text} for text in texts]},
        {"inputs": pixels.tolist()},
    ]
    for request in requests_of_the_same:
        served = ask(address, request)
        assert list(served.columns) == list(frame.columns)
        assert list(served["label"]) == list(frame["label"])
        assert served[PROBABILITIES].to_numpy() == pytest.approx(frame[PROBABILITIES].to_numpy(), abs=1e-6)


def test_pixels_of_any_size_are_resized_as_prepare_does(model):
    large = np.asarray(sample.draw("cat", 5).resize((75, 50)))
    small = resize(Image.fromarray(large), 32)
    pd.testing.assert_frame_equal(model.predict(large[None]), model.predict(small[None]))


def test_bad_picture_does_not_lose_the_others(model, address):
    good, expected = PICTURES[0], model.predict(pd.DataFrame({"image": PICTURES[:1]}))["cat"][0]
    bad = [b"no picture", bomb(), good[:300], b"", None]
    frame = model.predict(pd.DataFrame({"image": [*bad, good]}, index=list("abcdef")))
    assert list(frame.index) == list("abcdef")
    assert list(frame["label"].isna()) == [True] * 5 + [False]
    assert frame[PROBABILITIES][:5].isna().all(axis=None)
    assert frame["cat"]["f"] == pytest.approx(expected)
    reasons = ("not a picture", "900,000,000 pixels", "truncated", "empty file", "NoneType")
    for error, reason in zip(frame["error"], (*reasons, ""), strict=True):
        assert reason in error
    assert frame["error"]["f"] == ""

    served = ask(address, table("§§", as_text(b"no picture"), as_text(good)))
    assert list(served["label"].isna()) == [True, True, False]
    assert served["cat"][2] == pytest.approx(expected)
    assert served["cat"][:2].isna().all()
    assert "not base64" in served["error"][0]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (table(as_text(b"no picture")), "not a picture"),
        (table(as_text(bomb())), "900,000,000 pixels"),
        (table("this is text"), "not base64"),
        (table(), "got no pictures"),
        ({"inputs": []}, "got no pictures"),
        ({"inputs": [[1, 2], [3, 4]]}, "shape (2, 2)"),
        ({"inputs": [[[[0.5, 0.5, 0.5]]]]}, "whole numbers from 0 to 255"),
        ({"inputs": [[[[0, 0, 256]]]]}, "whole numbers from 0 to 255"),
        ({"dataframe_split": {"columns": ["picture"], "data": [["x"]]}}, "no column 'image'"),
        (["a list"], "list"),
    ],
)
def test_refused_with_a_reason(address, request_, reason):
    response = requests.post(address, json=request_, timeout=60)
    assert response.status_code == 400
    assert reason in response.json()["message"]


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
    assert second["cat"] is None and "not a picture" in second["error"]


def test_code_that_is_served_imports_nothing_else_of_ours(swept):
    """The modules that a fresh process takes from the model are those in its folder, and no others."""
    script = f"""
import sys, mlflow
mlflow.set_tracking_uri({swept.uri!r})
mlflow.pyfunc.load_model({NAME!r})
ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "pipeline"]
assert ours and not any(module.__file__.startswith({str(ROOT)!r}) for module in ours), ours
"""
    variables = {key: value for key, value in swept.environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=swept.path,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_classes_named_as_columns_keep_a_column_of_their_own():
    class Fixed:
        input_shape = (None, 8, 8, 3)

        def predict_on_batch(self, images):
            return np.tile([0.1, 0.2, 0.3, 0.4], (len(images), 1))

    classifier = serving.Classifier(Fixed(), ["label", "image", "error", "label (class)"])
    answer = classifier.predict(np.zeros((2, 9, 7, 3), np.uint8))
    assert list(answer.columns) == [
        "label", "label (class) (class)", "image", "error (class)", "label (class)", "error",
    ]  # fmt: skip
    assert list(answer["label"]) == ["label (class)"] * 2
    assert answer["label (class)"][0] == 0.4
    assert answer["label (class) (class)"][0] == 0.1


def test_all_bad_is_an_error_in_python_too(model):
    with pytest.raises(MlflowException, match="no picture can be used: empty file"):
        model.predict(pd.DataFrame({"image": [b"", b""]}))
