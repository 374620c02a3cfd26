"""The networks: shapes, seeds, what is frozen, features that are kept, and what is said of a bad backbone."""

import threading
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from pipeline import models
from pipeline.config.command_line import load
from pipeline.config.networks import APPLICATIONS, NETWORKS
from pipeline.inference import class_activation
from pipeline.models import backbones
from pipeline.runtime import files
from pipeline.runtime.errors import UserError
from pipeline.training import feature_cache
from pipeline.training import train as training
from pipeline.training.batches import LabelledImages, TrainingData, predict
from pipeline.training.config import TrainConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LITE = ROOT.parent / "shared/models/efficientnet_lite0.keras"
SIZE = 16


def read(*arguments: str):
    return load(arguments, ROOT / "params.yaml")


def build(*arguments: str, size: int = SIZE, num_classes: int = 3, seed: int = 1) -> keras.Model:
    return models.build(read(*arguments).model, size, num_classes, seed)


def headless(*inner: layers.Layer, size: int | None = None) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 8)(inputs)
    for number, filters in enumerate((4, 6)):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        x = layers.Activation("relu", name=f"relu{number}")(x)
    for layer in inner:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> str:
    """A small network with random weights and used statistics, as a Keras file."""
    keras.utils.set_random_seed(7)
    network = headless()
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-0.1, 0.1, layer.moving_mean.shape[0]))
    path = tmp_path_factory.mktemp("backbones") / "small.keras"
    network.save(path)
    return str(path)


@pytest.fixture
def transfer(backbone):
    return ("--model.name=transfer", f"--model.backbone={backbone}")


def images(count: int = 60, folder: Path | None = None) -> tuple[LabelledImages, LabelledImages]:
    """Bright and dark noise, which anything learns: two thirds to train on, one to validate."""
    random = np.random.default_rng(3)
    labels = np.arange(count) % 2
    arrays = random.integers(0, 130, (count, SIZE, SIZE, 3)) + 120 * labels[:, None, None, None]
    cut = 2 * count // 3
    cache = (
        feature_cache.FeatureCache(folder, np.array([f"digest {row}" for row in range(count)]))
        if folder
        else None
    )
    return tuple(
        LabelledImages(arrays.astype(np.uint8), labels, indices, cache)
        for indices in (np.arange(cut), np.arange(cut, count))
    )


def train(*arguments: str, folder: Path | None = None, **more) -> training.Trained:
    params = read("--train.epochs=2", "--train.batch_size=8", *arguments)
    return training.train(TrainConfig.of(params), TrainingData(*images(folder=folder), 2), **more)


def test_every_name_has_a_builder_and_what_is_known_of_it():
    for name in NETWORKS:
        assert callable(import_module(f"pipeline.models.{name}").build)
    of_the_model = set(type(read().model).model_fields) - {"name"}
    assert set().union(*(network.parameters for network in NETWORKS.values())) == of_the_model


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["--model.name=small_resnet"], 32),
        (["--model.name=small_resnet", "--model.activation=leaky_relu"], 33),
        (["--model.name=vgg16_cam", "--model.weights=none"], 32),
        (["--model.name=transfer", "--model.backbone=MobileNetV2", "--model.weights=none"], 32),
        (["--model.name=transfer", "--model.backbone=EfficientNetV2B0", "--model.weights=none"], 32),
    ],
)
def test_images_in_probabilities_out_and_safely_loaded_again(arguments, size, tmp_path):
    network = build(*arguments, size=size)
    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    probabilities = network.predict(images, verbose=0)
    assert network.input.dtype == "uint8"
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    network.save(tmp_path / "saved.keras")
    again = keras.saving.load_model(tmp_path / "saved.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict(images, verbose=0), probabilities, atol=1e-6)


def test_seed_decides_the_initial_weights():
    one, same, other = (build("--model.name=small_resnet", seed=seed) for seed in (1, 1, 2))
    for mine, theirs in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert any((a != b).any() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    kernels = [layer.kernel.numpy() for layer in one.layers if isinstance(layer, layers.Conv2D)]
    alike = [(a == b).all() for n, a in enumerate(kernels) for b in kernels[:n] if a.shape == b.shape]
    assert alike and not any(alike)


def test_small_resnet_starts_its_biases_from_the_parameter():
    network = build("--model.name=small_resnet", "--model.bias_initializer=0.25")
    shifts = [layer.beta.numpy() for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    assert len(shifts) == 1 + 2 * 8 + 4  # the stem, two a block, four shortcuts that change the filters
    assert all((shift == 0.25).all() for shift in shifts)


def test_applications_preprocess_as_keras_says():
    """ImageNet's means in BGR for VGG16, as its own preprocess_input has them."""
    network = build("--model.name=vgg16_cam", "--model.weights=none", size=32)
    images = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    inner = network.get_layer(backbones.BACKBONE)
    by_hand = inner(images[..., ::-1].astype(np.float32) - np.float32([103.939, 116.779, 123.68]))
    pooled = np.asarray(by_hand).mean(axis=(1, 2))
    label = network.get_layer("label")
    scores = pooled @ label.kernel.numpy() + label.bias.numpy()
    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(network.predict(images, verbose=0), expected, rtol=1e-4)


def test_vgg16_cam_is_explained_by_its_own_weights_at_a_sixteenth():
    network = build("--model.name=vgg16_cam", "--model.weights=none", size=64)
    images = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    found = class_activation.explain(network, images)
    assert found.method == class_activation.CAM
    assert found.maps.shape == (1, 4, 4)
    assert not [layer for layer in network.layers if isinstance(layer, layers.Dropout)]


def test_only_the_head_of_a_frozen_backbone_is_trained(transfer, backbone):
    before = keras.saving.load_model(backbone).get_weights()
    trained = train(*transfer, "--train.epochs=9", "--train.learning_rate=0.1", "--model.dropout=0")
    inner = trained.model.get_layer(backbones.BACKBONE)
    for mine, theirs in zip(inner.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(trained.model.trainable_variables) == 2
    assert trained.history["loss"][-1] < trained.history["loss"][0]


def test_training_on_kept_features_gives_what_the_whole_network_predicts(transfer):
    trained = train(*transfer)
    np.testing.assert_allclose(predict(trained.model, images()[1]), trained.probabilities, atol=1e-5)


def test_fine_tuning_moves_the_top_layers_and_no_statistics(transfer, backbone):
    before = {layer.name: layer.get_weights() for layer in keras.saving.load_model(backbone).layers}
    seen = []
    tuned = train(
        *transfer,
        "--model.fine_tune_epochs=2",
        "--model.fine_tune_layers=3",
        "--model.fine_tune_learning_rate=0.05",
        on_epoch=lambda epoch, values, _: seen.append((epoch, values["learning_rate"])),
    )
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert [rate for _, rate in seen] == pytest.approx([0.01, 0.01, 0.05, 0.05])
    inner = tuned.model.get_layer(backbones.BACKBONE)
    same = {
        layer.name: all((a == b).all() for a, b in zip(layer.get_weights(), before[layer.name], strict=True))
        for layer in inner.layers
    }
    moved = {name for name, alike in same.items() if not alike}
    assert moved == ({"conv1"} if tuned.best_epoch > 2 else set())
    assert [variable.path.split("/")[-2] for variable in inner.trainable_variables] == ["conv1", "conv1"]


def test_fine_tuning_starts_from_the_best_epoch_of_the_head(transfer):
    """With a rate that moves nothing, the first tuned epoch predicts what the best one of the head did."""
    head = train(*transfer, "--train.epochs=4", "--train.learning_rate=5")
    tuned = train(
        *transfer,
        *("--train.epochs=4", "--train.learning_rate=5", "--model.fine_tune_epochs=1"),
        "--model.fine_tune_learning_rate=1e-12",
    )
    assert tuned.history["val_loss"][:4] == head.history["val_loss"]
    best = head.history["val_loss"][head.best_epoch - 1]
    assert tuned.history["val_loss"][4] == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(("augment", "broken_off"), [("false", 1), ("false", 2), ("false", 3), ("true", 2)])
def test_going_on_in_either_stage_gives_the_same_digits(transfer, augment, broken_off):
    arguments = (*transfer, "--model.fine_tune_epochs=2", f"--train.augment={augment}")
    kept = {}
    whole = train(*arguments, on_epoch=lambda epoch, _, make: kept.update({epoch: make()}))
    again = train(*arguments, checkpoint=type(kept[1]).load(kept[broken_off].dump()))
    assert again.history == whole.history
    assert again.best_epoch == whole.best_epoch
    for mine, theirs in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_early_stopping_ends_a_stage_and_not_the_training(transfer):
    trained = train(
        *transfer,
        *("--train.epochs=9", "--train.learning_rate=1e-9", "--train.early_stopping_patience=1"),
        *("--model.fine_tune_epochs=9", "--model.fine_tune_learning_rate=1e-9"),
    )
    assert len(trained.history["loss"]) == 4  # two of each: the first, and one that is no better


def test_pruned_training_ends_in_the_first_stage(transfer):
    trained = train(*transfer, "--model.fine_tune_epochs=2", on_epoch=lambda epoch, *_: epoch == 1)
    assert len(trained.history["loss"]) == 1
    assert len(train(*transfer, "--model.fine_tune_epochs=2", until=3).history["loss"]) == 3


def test_features_are_computed_once(transfer, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "CHUNK", 16)
    first = train(*transfer, folder=tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(files) == 3 + 2  # 40 and 20 images
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".npy"]
    second = train(*transfer, "--train.learning_rate=0.02", folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files
    assert second.history != first.history
    next(iter(files)).unlink()  # as where a process was killed
    assert train(*transfer, folder=tmp_path).history == first.history
    assert set(tmp_path.rglob("*.npy")) == set(files)


def test_other_weights_have_other_features(transfer, backbone, tmp_path):
    network = keras.saving.load_model(backbone)
    network.set_weights([2 * weights for weights in network.get_weights()])
    network.save_weights(tmp_path / "twice.weights.h5")
    train(*transfer, folder=tmp_path)
    train(*transfer, f"--model.weights={tmp_path}/twice.weights.h5", folder=tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
    assert len(list(tmp_path.rglob("*.npy"))) == 4  # two splits, twice


def test_augmented_images_have_no_features_kept(transfer, tmp_path):
    train(*transfer, "--train.augment=true", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_images_that_change_places_keep_their_own_features(transfer, tmp_path, monkeypatch):
    """A rename moves images to other rows of a set whose digest stays: chunks go by their own images."""
    monkeypatch.setattr(feature_cache, "CHUNK", 16)
    data, extractor = images()[0], backbones.extractor(build(*transfer, num_classes=2))

    def computed(order: np.ndarray) -> np.ndarray:
        digests = np.array([f"digest {row}" for row in order])
        cache = feature_cache.FeatureCache(tmp_path, digests)
        moved = LabelledImages(data.images[order], data.labels[order], data.indices, cache)
        return moved.features(extractor)

    names = np.arange(60)
    first = np.asarray(computed(names))
    assert first.shape == (40, extractor.output.shape[-1])
    swapped = names.copy()
    swapped[[3, 20]] = 20, 3
    second = computed(swapped)
    np.testing.assert_allclose(np.asarray(second), first[swapped[:40]], rtol=1e-5)
    rows = np.array([20, 39, 3])
    np.testing.assert_array_equal(second[rows], np.asarray(second)[rows])
    assert len(list(tmp_path.rglob("*.npy"))) == 3 + 2, "the chunk of neither image is reused"
    assert (np.diff(first[[3, 20]], axis=0) != 0).any()


def test_features_are_those_of_the_asked_rows(transfer):
    data = images()[1]
    network = build(*transfer, num_classes=2)
    extractor = backbones.extractor(network)
    rows = np.array([59, 41, 50])
    found = LabelledImages(data.images, data.labels, rows).features(extractor)
    np.testing.assert_allclose(found, extractor.predict(data.images[rows], verbose=0), rtol=1e-5)


def test_without_weights_from_before_all_of_it_is_trained(transfer):
    network = build(*transfer, "--model.weights=none")
    assert not backbones.is_frozen(network)
    assert len(network.trainable_variables) == 2 * 4 + 2
    params = read(*transfer, "--model.weights=none", "--model.fine_tune_epochs=5", "--train.epochs=2")
    assert params.epochs == 2
    assert len(train(*transfer, "--model.weights=none", "--model.fine_tune_epochs=5").history["loss"]) == 2


def told(*arguments: str, size: int = SIZE) -> str:
    with pytest.raises(UserError) as error:
        build(*arguments, size=size)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_backbone_that_does_not_exist():
    text = told("--model.name=transfer", "--model.backbone=MobileNetV9")
    assert all(
        word in text for word in ("model.backbone", "'MobileNetV9'", "did you mean MobileNetV2?", "VGG16")
    )
    text = told("--model.name=transfer", "--model.backbone=no/such.keras")
    assert "model.backbone: file " in text and text.endswith("no/such.keras does not exist")
    assert "nor a Keras file (.keras)" in told("--model.name=transfer", "--model.backbone=a/b.onnx")


def test_names_of_applications_are_those_of_keras():
    assert set(APPLICATIONS) == set(backbones.applications())


def test_file_that_is_no_keras_file(tmp_path):
    (tmp_path / "text.keras").write_text("not a network")
    assert "cannot be loaded as a Keras file" in told(
        "--model.name=transfer", f"--model.backbone={tmp_path}/text.keras"
    )


def test_keras_file_with_code_inside_is_refused(tmp_path):
    headless(layers.Lambda(lambda x: x * 2)).save(tmp_path / "code.keras")
    text = told("--model.name=transfer", f"--model.backbone={tmp_path}/code.keras")
    assert "code inside is refused" in text and "Lambda" in text


def test_network_with_a_head_is_refused(tmp_path):
    headless(layers.GlobalAveragePooling2D(), layers.Dense(2)).save(tmp_path / "whole.keras")
    text = told("--model.name=transfer", f"--model.backbone={tmp_path}/whole.keras")
    assert "is not a network without a head" in text


def test_network_of_two_inputs_is_refused(tmp_path):
    pair = [keras.Input((None, None, 3)), keras.Input((None, None, 3))]
    keras.Model(pair, layers.Conv2D(2, 3)(layers.Add()(pair))).save(tmp_path / "two.keras")
    text = told("--model.name=transfer", f"--model.backbone={tmp_path}/two.keras")
    assert "one input of images" in text


def test_weights_of_another_model(transfer, tmp_path):
    other = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(5, 3)])
    other.save_weights(tmp_path / "other.weights.h5")
    other.save(tmp_path / "other.keras")
    for name in ("other.weights.h5", "other.keras"):
        text = told(*transfer, f"--model.weights={tmp_path / name}")
        assert f"{tmp_path / name} does not hold the weights of" in text
    text = told("--model.name=vgg16_cam", f"--model.weights={tmp_path}/other.weights.h5", size=32)
    assert "does not hold the weights of VGG16" in text
    assert "no/such.weights.h5 does not exist" in told(*transfer, "--model.weights=no/such.weights.h5")
    assert "allowed: imagenet, none, or a file" in told(*transfer, "--model.weights=imagnet")


def test_image_size_that_the_network_cannot_take(tmp_path):
    text = told("--model.name=transfer", "--model.backbone=Xception", "--model.weights=none", size=64)
    assert "Xception cannot take images of 64 px" in text and "71x71" in text
    assert "VGG16 cannot take images of 16 px" in told("--model.name=vgg16_cam", "--model.weights=none")
    headless(size=24).save(tmp_path / "fixed.keras")
    text = told("--model.name=transfer", f"--model.backbone={tmp_path}/fixed.keras")
    assert "set data.image_size=24" in text
    headless(layers.MaxPooling2D(8)).save(tmp_path / "deep.keras")
    text = told("--model.name=transfer", f"--model.backbone={tmp_path}/deep.keras")
    assert "cannot take images of 16 px" in text


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    text = told("--model.name=vgg16_cam", size=32)
    file = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert "the ImageNet weights of VGG16 cannot be downloaded: https://" in text
    assert f"put it at {tmp_path}/models/{file}" in text


def test_weights_that_are_there_are_loaded_without_waiting(tmp_path, monkeypatch, capsys):
    """Workers that build the same network do not wait for each other; nothing is downloaded."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))  # read when Keras is imported
    folder = tmp_path / "models"
    folder.mkdir()
    fresh = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    fresh.save(folder / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5")

    def built() -> np.ndarray:
        network = build("--model.name=transfer", "--model.backbone=MobileNetV2", size=96)
        return network.get_layer(backbones.BACKBONE).get_weights()[0]

    first, found = built(), []
    with files.file_lock(folder / ".lock", "waiting"):
        waiting = threading.Thread(target=lambda: found.append(built()), daemon=True)
        waiting.start()
        waiting.join(120)
    assert len(found) == 1 and (found[0] == first).all()
    assert "another process" not in capsys.readouterr().out


@pytest.mark.skipif(not LITE.exists(), reason=f"{LITE} is not there")
def test_real_backbone_takes_images_of_any_size():
    network = build("--model.name=transfer", f"--model.backbone={LITE}", size=96)
    assert backbones.extractor(network).output.shape == (None, 1280)
    assert backbones.is_frozen(network)
    backbones.unfreeze(network, 10)
    inner = network.get_layer(backbones.BACKBONE)
    tuned = [layer for layer in inner.layers if layer.trainable and layer.weights]
    assert tuned and not [layer for layer in tuned if isinstance(layer, layers.BatchNormalization)]
