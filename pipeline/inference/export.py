"""A network as files that other programs run, and how far their answers are from its own.

Each file takes `images`, (batch, size, size, 3) uint8 RGB, and gives `probabilities`, (batch, num_classes)
float32, whatever the size of the batch. ONNX is written by Keras's own exporter, by way of tf2onnx.
"""

import errno
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipeline.config.schema import ExportFormat
from pipeline.runtime import logs
from pipeline.runtime.errors import UserError

TOLERANCE = 1e-4  # that a probability may differ by; rounding alone is below 1e-6
TIE = 1e-6  # classes whose probabilities are as near as this may change places by rounding
BATCH = 32


@dataclass(frozen=True)
class Comparison:
    """How far a file's answers are from those of the network.

    Attributes:
        max_difference: the largest absolute difference of a probability; NaN where the file answers NaN.
        differing_labels: images that get another label, ties aside.
    """

    max_difference: float
    differing_labels: int

    @property
    def same(self) -> bool:
        """Whether the file answers as the network does."""
        return self.max_difference <= TOLERANCE and self.differing_labels == 0  # false for NaN


def write(network: keras.Model, classes: Sequence[str], format: ExportFormat, path: Path) -> None:
    """Write a network in one format.

    Args:
        network: functional, (batch, size, size, 3) uint8 -> (batch, num_classes) float32.
        classes: names in the order of the outputs; kept within an ONNX file only.
        format: `keras`, `saved_model` (a folder) or `onnx`.
        path: where it goes; nothing is there yet.

    Raises:
        UserError: the network has an operation that ONNX does not know.
        OSError: the disk does not take it.
    """
    if format == "keras":
        network.save(path)
        return
    # a dict names the output: programs that know nothing of Keras ask for it by name
    named = keras.Model(network.inputs, {"probabilities": network.outputs[0]})
    images = keras.InputSpec(shape=(None, *network.input_shape[1:]), dtype="uint8", name="images")
    if format == "saved_model":
        try:
            named.export(path, format="tf_saved_model", input_signature=[images], verbose=False)
        except tf.errors.ResourceExhaustedError as error:  # what TensorFlow calls a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    else:
        _write_onnx(named, images, classes, path)


def _write_onnx(named: keras.Model, images: keras.InputSpec, classes: Sequence[str], path: Path) -> None:
    import onnx
    import tf2onnx

    logs.silence(tf2onnx.__name__)
    with warnings.catch_warnings():
        # of Keras's own patch for tf2onnx, which looks whether NumPy still has the name
        logs.ignore(FutureWarning, "In the future `np.object`")
        named.export(path, format="onnx", input_signature=[images], verbose=False)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, {"classes": json.dumps(list(classes), ensure_ascii=False)})
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"this network cannot be written as ONNX: {reason}; leave onnx out of export.formats"
        ) from error
    onnx.save(model, path)


def answers(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """The network's own probabilities, float32 (n, num_classes), of uint8 images (n, size, size, 3)."""
    # called, not `predict`: that would trace a graph anew for each size of a batch, and warn of it
    return _in_batches(lambda batch: network(batch, training=False).numpy(), images)


def answers_of_file(format: ExportFormat, path: Path, images: np.ndarray) -> np.ndarray:
    """What `answers` gives, of a file that `write` wrote, read from the disk again."""
    if format == "keras":
        return answers(keras.saving.load_model(path, compile=False, safe_mode=True), images)
    if format == "saved_model":
        loaded = tf.saved_model.load(str(path))
        return _in_batches(lambda batch: loaded.serve(batch)["probabilities"].numpy(), images)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _in_batches(lambda batch: session.run(["probabilities"], {"images": batch})[0], images)


def _in_batches(answer: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    # one image, then many at once: a file that takes batches of one size only does not get through
    starts = [0, *range(1, len(images), BATCH)]
    batches = [images[start:end] for start, end in zip(starts, [*starts[1:], len(images)], strict=True)]
    shortened = tf.config.experimental.tensor_float_32_execution_enabled()
    # some GPUs would round to ten bits, and ONNX Runtime's processor does not
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        return np.concatenate([answer(batch) for batch in batches])
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(shortened)


def compare(expected: np.ndarray, got: np.ndarray) -> Comparison:
    """Compare probabilities, float32 (n, num_classes) each: the network's, finite, and a file's."""
    chosen = expected[np.arange(len(expected)), got.argmax(axis=1)]
    return Comparison(
        max_difference=float(np.abs(expected - got).max()),
        # by how much the network itself prefers its own label to the file's
        differing_labels=int((expected.max(axis=1) - chosen > TIE).sum()),
    )


def megabytes(path: Path) -> float:
    """The size of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
