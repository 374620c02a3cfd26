"""Facts about class activation maps: against sums by hand, and against each other."""

import keras
import numpy as np
import pytest
from keras import layers

from pipeline.inference import class_activation
from pipeline.runtime.errors import UserError
from pipeline.sources.images import decode, resize
from pipeline.sources.zips import Archive

SIZE, CHANNELS, CLASSES = 6, 4, 3


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def features(name: str = "features", filters: int = CHANNELS) -> list[layers.Layer]:
    """Rescaling and a 1x1 convolution with ReLU: small enough to compute by hand."""
    return [layers.Rescaling(1 / 255), layers.Conv2D(filters, 1, activation="relu", name=name)]


def build(*stack: layers.Layer, seed: int = 3) -> keras.Model:
    """A model of a stack of layers, with weights drawn from the seed, biases too."""
    inputs = outputs = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    for layer in stack:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def averaged(softmax: bool = True) -> keras.Model:
    activation = "softmax" if softmax else None
    return build(
        *features(),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.5),
        layers.Dense(CLASSES, activation=activation),
    )


def flattened() -> keras.Model:
    return build(*features(), layers.Flatten(), layers.Dense(CLASSES, activation="softmax"))


def by_hand(model: keras.Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features (n, rows, columns, channels) of `features`, and the classifier's kernel."""
    kernel, bias, classifier, _ = model.get_weights()
    return np.maximum(images / 255 @ kernel[0, 0] + bias, 0), classifier


CLASS_INDICES = np.array([0, 1, 2, 2, 0])


def test_cam_by_hand(images):
    model = averaged()
    values, classifier = by_hand(model, images)
    expected = np.stack([values[n] @ classifier[:, index] for n, index in enumerate(CLASS_INDICES)])
    maps = class_activation.class_activation_map(model, images, CLASS_INDICES)
    assert maps.shape == (5, SIZE, SIZE)
    assert maps.min() < 0 < maps.max()
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)


def test_grad_cam_by_hand_behind_a_flattened_layer(images):
    """A score's gradient there is the classifier's kernel itself where the softmax is left out."""
    model = flattened()
    values, classifier = by_hand(model, images)
    gradients = classifier.reshape(SIZE, SIZE, CHANNELS, CLASSES)
    weights = gradients.mean(axis=(0, 1))[:, CLASS_INDICES]  # (channels, n)
    expected = np.maximum(np.stack([values[n] @ weights[:, n] for n in range(5)]), 0)
    maps = class_activation.grad_cam(model, images, CLASS_INDICES)
    assert (maps == 0).any() and (maps > 0).any()
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("last", [layers.Softmax, lambda: layers.Activation("softmax"), None])
def test_grad_cam_takes_the_score_before_any_softmax(images, last):
    stack = [*features(), layers.Flatten(), layers.Dense(CLASSES)]
    maps = class_activation.grad_cam(build(*stack, *([last()] if last else [])), images, CLASS_INDICES)
    np.testing.assert_allclose(
        maps, class_activation.grad_cam(flattened(), images, CLASS_INDICES), rtol=1e-4, atol=1e-6
    )


def test_saturated_softmax_does_not_hide_the_gradient(images):
    model = flattened()
    model.layers[-1].set_weights([model.layers[-1].get_weights()[0], np.array([1e4, 0, 0])])
    assert (model.predict(images, verbose=0) == [1, 0, 0]).all()
    maps = class_activation.grad_cam(model, images, CLASS_INDICES)
    np.testing.assert_array_equal(maps, class_activation.grad_cam(flattened(), images, CLASS_INDICES))
    assert maps.any()


def test_both_methods_agree_behind_global_average_pooling(images):
    """There the gradient is the classifier's weight over the number of positions."""
    model = averaged()
    cam = class_activation.class_activation_map(model, images, CLASS_INDICES)
    grad_cam = class_activation.grad_cam(model, images, CLASS_INDICES, "features")
    np.testing.assert_allclose(grad_cam * SIZE * SIZE, np.maximum(cam, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        class_activation.normalize(grad_cam), class_activation.normalize(cam), rtol=1e-4, atol=1e-5
    )


def test_normalize_by_each_maps_own_maximum():
    maps = np.array([[[1, 2], [-3, 4]], [[0, 0], [0, 0]], [[-1, -2], [-1, 0]]], np.float32)
    expected = [[[0.25, 0.5], [0, 1]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    assert class_activation.normalize(maps).tolist() == expected


def test_features_that_are_all_zero_give_a_map_of_zeros(images):
    model = averaged()
    kernel, bias, *rest = model.get_weights()
    model.set_weights([np.zeros_like(kernel), np.full_like(bias, -1), *rest])
    for layer in (None, "features"):
        maps = class_activation.explain(model, images, layer=layer).maps
        assert maps.shape == (5, SIZE, SIZE)
        assert not maps.any()


def nested(*head: layers.Layer) -> keras.Model:
    """A frozen backbone, itself with a model in it, and a head."""
    inner = keras.Sequential(
        [keras.Input((SIZE, SIZE, CHANNELS)), layers.Conv2D(5, 3, padding="same", name="inmost")],
        name="inner",
    )
    inputs = keras.Input((SIZE, SIZE, 3))
    x = inner(layers.Conv2D(CHANNELS, 1, name="first")(inputs))
    backbone = keras.Model(inputs, layers.ReLU(name="top")(x), name="backbone")
    backbone.trainable = False
    return build(layers.Rescaling(1 / 255), backbone, *head)


def test_nested_backbone_gives_what_the_same_layers_give_unnested(images):
    head = [layers.Flatten(), layers.Dense(CLASSES, activation="softmax")]
    model = nested(*head)
    flat = build(
        layers.Rescaling(1 / 255),
        layers.Conv2D(CHANNELS, 1, name="first"),
        layers.Conv2D(5, 3, padding="same", name="inmost"),
        layers.ReLU(name="top"),
        *[layers.Flatten(), layers.Dense(CLASSES, activation="softmax")],
    )
    flat.set_weights(model.get_weights())
    for layer in (None, "first", "inmost", "top"):
        maps = class_activation.grad_cam(model, images, CLASS_INDICES, layer)
        assert maps.any()
        np.testing.assert_allclose(
            maps, class_activation.grad_cam(flat, images, CLASS_INDICES, layer), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_array_equal(
        class_activation.grad_cam(model, images, CLASS_INDICES, "backbone"),
        class_activation.grad_cam(model, images, CLASS_INDICES, "top"),
    )


def test_nested_backbone_behind_global_average_pooling_uses_cam(images):
    model = nested(layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax"))
    explained = class_activation.explain(model, images, CLASS_INDICES)
    assert explained.method == class_activation.CAM
    by_gradients = class_activation.explain(model, images, CLASS_INDICES, "top")
    assert by_gradients.method == class_activation.GRAD_CAM
    np.testing.assert_allclose(explained.maps, by_gradients.maps, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_real_backbone_with_a_real_photo(shared):
    """Both methods, each by its own way through the pretrained network, give one map."""
    photo = Archive(shared / "data" / "petimages-400.zip").read("PetImages/Cat/100.jpg")
    backbone = keras.saving.load_model(shared / "models" / "efficientnet_lite0.keras", safe_mode=True)
    backbone.trainable = False
    inputs = keras.Input((96, 96, 3), dtype="uint8")
    x = layers.GlobalAveragePooling2D()(backbone(inputs))
    # no negative weight: features of ReLU6 then speak for either class somewhere
    kernel = keras.initializers.RandomUniform(0, 0.1, seed=3)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", kernel_initializer=kernel)(x))
    image = resize(decode(photo), 96)[None]
    cam = class_activation.explain(model, image)
    grad_cam = class_activation.explain(model, image, layer="top_activation")
    assert (cam.method, grad_cam.method) == (class_activation.CAM, class_activation.GRAD_CAM)
    assert cam.maps.shape == (1, 3, 3)
    assert cam.maps.max() == 1
    np.testing.assert_allclose(cam.maps, grad_cam.maps, atol=1e-3)


def test_explain_takes_the_predicted_class_and_any_number_of_images():
    many = np.random.default_rng(1).integers(0, 256, (37, SIZE, SIZE, 3), np.uint8)
    model = flattened()
    explained = class_activation.explain(model, many)
    probabilities = model.predict(many, verbose=0)
    assert explained.method == class_activation.GRAD_CAM
    assert explained.class_indices.tolist() == probabilities.argmax(axis=1).tolist()
    np.testing.assert_allclose(explained.probabilities, probabilities, rtol=1e-4, atol=1e-6)
    alone = class_activation.explain(model, many[30:31])
    np.testing.assert_allclose(explained.maps[30], alone.maps[0], rtol=1e-4, atol=1e-5)
    assert (explained.maps.max(axis=(1, 2)) == 1).all()


@pytest.mark.parametrize(
    ("head", "method"),
    [
        ([layers.Dense(CLASSES, activation="softmax")], class_activation.CAM),
        (
            [layers.Dense(8, activation="relu"), layers.Dense(CLASSES, activation="softmax")],
            class_activation.GRAD_CAM,
        ),
        ([layers.Dense(CLASSES, activation="sigmoid")], class_activation.GRAD_CAM),
    ],
)
def test_cam_is_for_one_dense_softmax_layer_alone(images, head, method):
    model = build(*features(), layers.GlobalAveragePooling2D(), *head)
    assert class_activation.explain(model, images).method == method
    if method == class_activation.GRAD_CAM:
        with pytest.raises(ValueError, match="global average pooling"):
            class_activation.class_activation_map(model, images, CLASS_INDICES)


def test_wrong_layer_is_told_the_right_ones(images):
    model = nested(layers.Flatten(name="flat"), layers.Dense(CLASSES, activation="softmax", name="label"))
    for name in ("tpo", "flat", "label"):
        with pytest.raises(UserError, match=f"'{name}'.*backbone, first, inner, inmost, top$"):
            class_activation.explain(model, images, layer=name)


def test_last_layer_that_does_not_pool_is_the_default(images):
    head = [layers.Flatten(), layers.Dense(CLASSES, activation="softmax")]
    model = build(*features(), layers.MaxPooling2D(2, name="pooled"), *head)
    maps = class_activation.grad_cam(model, images, CLASS_INDICES)
    assert maps.shape == (5, SIZE, SIZE)
    np.testing.assert_array_equal(maps, class_activation.grad_cam(model, images, CLASS_INDICES, "features"))
    assert class_activation.grad_cam(model, images, CLASS_INDICES, "pooled").shape == (
        5,
        SIZE // 2,
        SIZE // 2,
    )


def test_network_without_space_is_refused(images):
    model = build(layers.Flatten(), layers.Dense(CLASSES, activation="softmax"))
    with pytest.raises(UserError, match="height and a width"):
        class_activation.explain(model, images)


def test_model_is_left_as_it_was(images):
    model = averaged()
    before = model.predict(images, verbose=0)
    class_activation.explain(model, images)
    class_activation.explain(model, images, layer="features")
    assert all("call" not in vars(layer) for layer in model.layers)
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


def test_mixed_precision_gives_the_same_map(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = averaged()
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in (None, "features"):
        maps = class_activation.explain(mixed, images, CLASS_INDICES, layer).maps
        assert maps.dtype == np.float32
        expected = class_activation.explain(averaged(), images, CLASS_INDICES, layer).maps
        np.testing.assert_allclose(maps, expected, atol=0.06)
