"""Where in an image a network sees a class: class activation maps, for any network that convolves.

A map has the size of the features that it is computed from; `figures.heatmaps` enlarges and draws it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from pipeline.runtime.errors import UserError

CAM, GRAD_CAM = "CAM", "Grad-CAM"
_POOLING = (layers.MaxPooling2D, layers.AveragePooling2D)
_BATCH = 16  # images at once: the activations of a whole network are kept for their gradients


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of a set of images, and what the network says of them.

    Attributes:
        maps: (n, rows, columns) float32, 0 to 1, normalized; all zero where nothing speaks for the class.
        class_indices: (n,) int64, the class that each map is of.
        probabilities: (n, num_classes) float32.
        method: `CAM` or `GRAD_CAM`.
    """

    maps: np.ndarray
    class_indices: np.ndarray
    probabilities: np.ndarray
    method: str


def explain(
    model: keras.Model,
    images: np.ndarray,
    class_indices: np.ndarray | None = None,
    layer: str | None = None,
) -> Explanation:
    """Map what speaks for a class: CAM where the network's head allows it and no layer is named, or Grad-CAM.

    Args:
        model: (batch, height, width, 3) -> (batch, num_classes) probabilities.
        images: (n, height, width, 3), as the model takes them; n at least 1.
        class_indices: (n,) int, 0 to num_classes - 1; None: each image's most probable class.
        layer: as in `grad_cam`.

    Raises:
        UserError: the model has no such layer, or none that it could be explained at.
    """
    batches = np.array_split(np.asarray(images), math.ceil(len(images) / _BATCH))
    probabilities = np.concatenate([_numpy(model(batch, training=False)) for batch in batches])
    chosen = np.argmax(probabilities, axis=1) if class_indices is None else np.asarray(class_indices)
    method = CAM if layer is None and _averaged_head(model) else GRAD_CAM
    maps = [
        class_activation_map(model, batch, classes)
        if method == CAM
        else grad_cam(model, batch, classes, layer)
        for batch, classes in zip(batches, np.array_split(chosen, len(batches)), strict=True)
    ]
    return Explanation(normalize(np.concatenate(maps)), chosen.astype(np.int64), probabilities, method)


def class_activation_map(model: keras.Model, images: np.ndarray, class_indices: np.ndarray) -> np.ndarray:
    """The classifier's own weights times the last features (Zhou et al. 2016, arXiv:1512.04150, eq. 2).

    Args:
        model: ends in global average pooling, perhaps dropout, and one dense layer with softmax.
        images: (n, height, width, 3), as the model takes them.
        class_indices: (n,) int, the class to map in each.

    Returns:
        (n, rows, columns) float32; negative where the features speak against the class. Its mean over rows
        and columns is the class's score before the softmax, less the bias.

    Raises:
        ValueError: the model has another head.
    """
    head = _averaged_head(model)
    if head is None:
        raise ValueError(f"{model.name} does not end in global average pooling and one dense softmax layer")
    pooling, classifier = head
    captured: dict[str, tf.Tensor] = {}
    with _capture_outputs(pooling, lambda inputs, _: captured.update(features=inputs)):
        model(images, training=False)
    weights = _numpy(classifier.kernel)[:, class_indices]  # (channels, n)
    maps: np.ndarray = np.einsum("nijc,cn->nij", _numpy(captured["features"]), weights)
    return maps


def grad_cam(
    model: keras.Model, images: np.ndarray, class_indices: np.ndarray, layer: str | None = None
) -> np.ndarray:
    """A layer's features, each weighed by how the class's score answers to it (Selvaraju et al. 2017).

    arXiv:1610.02391, eq. 1 and 2: the weight of a channel is the mean of the score's gradient over rows and
    columns; the score is the one before the softmax; of the weighted sum, what is negative becomes 0.

    Args:
        model: any network, also with other models in it.
        images: (n, height, width, 3), as the model takes them.
        class_indices: (n,) int, the class to map in each.
        layer: name of a layer with a 4-D output, perhaps of a nested model; of several with that name the
            last. None: the last one of all that does not pool.

    Returns:
        (n, rows, columns) float32, from 0.

    Raises:
        UserError: the model has no such layer, or none with a 4-D output.
    """
    chosen, last = _spatial_layer(model, layer), _leaves(model)[-1]
    captured: dict[str, tf.Tensor] = {}
    with tf.GradientTape(watch_accessed_variables=False) as tape, ExitStack() as stack:

        def keep(_: tf.Tensor, features: tf.Tensor) -> None:
            tape.watch(features)
            captured["features"] = features

        stack.enter_context(_capture_outputs(chosen, keep))
        stack.enter_context(
            _capture_outputs(last, lambda *ends: captured.update(scores=_before_softmax(last, *ends)))
        )
        model(images, training=False)
        scores = tf.gather(captured["scores"], class_indices, axis=1, batch_dims=1)  # (n,)
    gradients = tape.gradient(scores, captured["features"], unconnected_gradients="zero")
    weights = _numpy(gradients).mean(axis=(1, 2))  # (n, channels)
    maps: np.ndarray = np.einsum("nijc,nc->nij", _numpy(captured["features"]), weights)
    return np.asarray(np.maximum(maps, 0))


def normalize(maps: np.ndarray) -> np.ndarray:
    """Bring each map to [0, 1] by its own maximum; what is negative becomes 0, an all-zero map stays zero.

    Args:
        maps: (n, rows, columns) float.
    """
    positive = np.maximum(maps, 0)
    highest = positive.max(axis=(1, 2), keepdims=True)  # (n, 1, 1)
    normalized: np.ndarray = np.divide(positive, highest, out=np.zeros_like(positive), where=highest > 0)
    return normalized


def spatial_layers(model: keras.Model) -> list[layers.Layer]:
    """The layers with a 4-D output, those of nested models among them, from the input to the output."""
    return [layer for layer in _every_layer(model) if len(layer.output.shape) == 4]


def _spatial_layer(model: keras.Model, name: str | None) -> layers.Layer:
    found = spatial_layers(model)
    names = list(dict.fromkeys(layer.name for layer in found))
    if not found:
        raise UserError(f"{model.name} has no layer with a height and a width: it cannot be explained")
    if name is not None and name not in names:
        raise UserError(f"{model.name} has no layer {name!r} to explain it at; allowed: {', '.join(names)}")
    if name is None:
        # Pooling halves the map, and the mean over what is left says less of the gradient: of a `simple_cnn`
        # with tanh (4 x 4 pooled), four of eight maps, of classes predicted with 0.94 to 1.00, were all zero.
        found = [layer for layer in found if not isinstance(layer, _POOLING)] or found
    return [layer for layer in found if name in (None, layer.name)][-1]


def _every_layer(model: keras.Model) -> Iterator[layers.Layer]:
    """All layers in order, but inputs; a nested model comes before its own layers."""
    for layer in model.layers:
        if not isinstance(layer, layers.InputLayer):
            yield layer
        if isinstance(layer, keras.Model):
            yield from _every_layer(layer)


def _leaves(model: keras.Model) -> list[layers.Layer]:
    return [layer for layer in _every_layer(model) if not isinstance(layer, keras.Model)]


def _averaged_head(model: keras.Model) -> tuple[layers.Layer, layers.Dense] | None:
    """The global average pooling and the dense softmax layer that a model ends in; None where it does not."""
    *before, last = [layer for layer in _leaves(model) if not isinstance(layer, layers.Dropout)]
    if not before or not isinstance(before[-1], layers.GlobalAveragePooling2D):
        return None
    is_classifier = isinstance(last, layers.Dense) and last.activation is keras.activations.softmax
    return (before[-1], last) if is_classifier else None


def _before_softmax(layer: layers.Layer, inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """The scores, (n, num_classes), that a network's last layer makes probabilities of."""
    activation = getattr(layer, "activation", None)
    if isinstance(layer, layers.Softmax):
        return inputs
    if activation is not keras.activations.softmax:
        return outputs
    if isinstance(layer, layers.Dense):
        scores = keras.ops.matmul(inputs, layer.kernel)
        return scores + layer.bias if layer.use_bias else scores
    return inputs


@contextmanager
def _capture_outputs(layer: layers.Layer, see: Callable[[tf.Tensor, tf.Tensor], object]) -> Iterator[None]:
    """Pass the inputs and outputs of each call of a layer to `see`.

    The tensors of a nested model belong to a graph of its own, which no model can be built through from the
    outer one's inputs; so the layer's `call` is replaced for the duration.
    """
    call = layer.call

    def observed(inputs: tf.Tensor, *arguments: Any, **options: Any) -> tf.Tensor:
        outputs = call(inputs, *arguments, **options)
        see(inputs, outputs)
        return outputs

    layer.call = observed
    try:
        yield
    finally:
        del layer.call


def _numpy(tensor: object) -> np.ndarray:
    """As float32, also from a network of mixed precision."""
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float32)
