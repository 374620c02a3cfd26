"""Training: the network, the schedule, the order of batches, the best epoch, determinism."""

import json
import math
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from pipeline import models
from pipeline.config.command_line import load
from pipeline.config.schema import ScheduleParams
from pipeline.evaluation import metrics
from pipeline.training import callbacks, graph_cache
from pipeline.training import train as training
from pipeline.training.batches import Batches, LabelledImages, TrainingData, predict
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.config import TrainConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def read(*arguments: str):
    return load(arguments, ROOT / "params.yaml")


def labelled_images(count: int = 96, size: int = 16) -> LabelledImages:
    """Dark images of class 0 and light ones of class 1, with noise."""
    rng = np.random.default_rng(7)
    labels = np.arange(count) % 2
    images = rng.integers(0, 120, (count, size, size, 3)) + 60 * labels[:, None, None, None]
    return LabelledImages(images.astype(np.uint8), labels, np.arange(count))


def halves(data: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    middle = len(data.indices) // 2
    return (
        LabelledImages(data.images, data.labels, data.indices[:middle]),
        LabelledImages(data.images, data.labels, data.indices[middle:]),
    )


def train(*arguments: str, **more) -> training.Trained:
    params = read("--data.image_size=16", "--train.epochs=3", *arguments)
    return training.train(TrainConfig.of(params), TrainingData(*halves(labelled_images()), 2), **more)


def test_simple_cnn_is_the_original_network():
    params = read("--model.activation=leaky_relu", "--model.bias_initializer=0.01").model
    model = models.build(params, 64, 2, seed=1)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [32, 64, 128, 128]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert {layer.padding for layer in convolutions} == {"same"}
    slopes = {layer.negative_slope for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)}
    assert slopes == {0.3}
    # 3*3*3*32+32, 3*3*32*64+64, 3*3*64*128+128, 3*3*128*128+128, 4*4*128*128+128, 128*2+2
    assert model.count_params() == 896 + 18_496 + 73_856 + 147_584 + 262_272 + 258
    hidden, output = (layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    assert (hidden.units, output.units, output.activation) == (128, 2, keras.activations.softmax)
    np.testing.assert_allclose(hidden.bias.numpy(), 0.01)
    assert model.layers[-2].rate == 0.5
    # he_uniform draws from +-sqrt(6 / fan_in)
    limit = math.sqrt(6 / (3 * 3 * 32))
    kernel = convolutions[1].kernel.numpy()
    assert 0.95 * limit < np.abs(kernel).max() <= limit


def test_rescaling_travels_with_the_model(tmp_path):
    model = models.build(read().model, 16, 3, seed=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    answer = again.predict(images, verbose=0)
    np.testing.assert_array_equal(answer, model.predict(images, verbose=0))
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)
    assert again.inputs[0].dtype == "uint8"


def test_layers_start_from_different_weights():
    model = models.build(read().model, 32, 2, seed=1)
    seeds = [layer.kernel_initializer.seed for layer in model.layers if hasattr(layer, "kernel_initializer")]
    assert len(set(seeds)) == len(seeds) == 6
    again, other = (models.build(read().model, 32, 2, seed=seed) for seed in (1, 2))
    first, same, different = (network.layers[2].kernel.numpy() for network in (model, again, other))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, different)


def test_schedule_is_constant_then_falls():
    schedule = ScheduleParams(start=10, every=5, factor=0.1)
    rates = [callbacks.learning_rate(0.01, schedule, epoch) for epoch in range(1, 22)]
    assert rates[:10] == [0.01] * 10
    assert rates[10:15] == pytest.approx([0.001] * 5)
    assert rates[15:20] == pytest.approx([0.0001] * 5)
    assert rates[20] == pytest.approx(0.00001)


def test_schedule_is_what_the_optimizer_gets():
    history = train("--train.schedule.start=1", "--train.schedule.every=1").history
    assert history["learning_rate"] == pytest.approx([0.01, 0.001, 0.0001])


def test_every_image_once_an_epoch_and_another_order_the_next():
    data = labelled_images(count=10)
    batches = Batches(data, batch_size=4, seed=3)
    epochs = []
    for _ in range(2):
        epochs.append([batches[number][0] for number in range(len(batches))])
        batches.on_epoch_end()
    assert [len(batch) for batch in epochs[0]] == [4, 4, 2]
    first, second = (np.concatenate(epoch) for epoch in epochs)
    assert not np.array_equal(first, second)
    every = sorted(image.tobytes() for image in data.images)
    assert sorted(image.tobytes() for image in first) == sorted(image.tobytes() for image in second) == every


def test_keeps_the_best_epoch():
    trained = train("--train.epochs=4")
    accuracies, losses = trained.history["val_accuracy"], trained.history["val_loss"]
    best = max(range(4), key=lambda epoch: (accuracies[epoch], -losses[epoch]))
    assert trained.best_epoch == best + 1
    _, validation = halves(labelled_images())
    labels = validation.labels[validation.indices]
    np.testing.assert_array_equal(predict(trained.model, validation), trained.probabilities)
    assert (trained.probabilities.argmax(axis=1) == labels).mean() == accuracies[best]


def test_validation_loss_is_keras_own():
    trained = train()
    _, validation = halves(labelled_images())
    labels = validation.labels[validation.indices]
    trained.model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = trained.model.evaluate(validation.images[validation.indices], labels, verbose=0)
    best = trained.best_epoch - 1
    assert trained.history["val_loss"][best] == pytest.approx(loss, rel=1e-5)
    assert trained.history["val_accuracy"][best] == pytest.approx(accuracy)


def test_calls_back_every_epoch_with_all_metrics():
    seen = []
    train(on_epoch=lambda epoch, values, _: seen.append((epoch, set(values))))
    assert seen == [(epoch, set(callbacks.METRICS)) for epoch in (1, 2, 3)]


def test_early_stopping():
    # nothing can be learned at this rate, so the first epoch stays the best
    trained = train("--train.epochs=9", "--train.learning_rate=1e-9", "--train.early_stopping_patience=2")
    assert len(trained.history["loss"]) == 3


def test_diverging_ends_with_a_result():
    trained = train("--train.learning_rate=1e9")
    assert len(trained.history["loss"]) == 1, "no epoch is trained after the one that diverged"
    assert not math.isfinite(trained.history["loss"][-1])
    assert trained.probabilities.shape == (48, 2)


@pytest.mark.parametrize("augment", ["false", "true"])
def test_what_was_trained_before_does_not_matter(augment):
    """Graphs are kept and used again; weights, momentum, dropout and augmentation start afresh."""
    arguments = [f"--train.augment={augment}", "--model.activation=swish"]
    first = train(*arguments)
    other = train(*arguments, "--model.kernel_initializer=lecun_uniform", "--train.learning_rate=1e9")
    again = train(*arguments)
    assert again.history == first.history
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    assert not math.isfinite(other.history["loss"][-1])
    assert [layer.name for layer in again.model.layers] == [layer.name for layer in first.model.layers]


def test_augmentation_changes_training_alone():
    plain, augmented = train(), train("--train.augment=true")
    assert plain.history["loss"] != augmented.history["loss"]
    assert [type(layer) for layer in plain.model.layers] == [type(layer) for layer in augmented.model.layers]
    np.testing.assert_array_equal(
        augmented.probabilities, predict(augmented.model, halves(labelled_images())[1])
    )


def test_stops_where_it_is_told():
    assert len(train(on_epoch=lambda epoch, *_: epoch == 2).history["loss"]) == 2


GO_ON = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import numpy as np
from test_training import train
from pipeline.training.checkpoint import Checkpoint
folder, *arguments = sys.argv[1:]
for file in sorted(Path(folder).glob("*.checkpoint")):
    trained = train(*arguments, checkpoint=Checkpoint.load(file.read_bytes()))
    np.savez(file.with_suffix(".npz"), *trained.model.get_weights(), probabilities=trained.probabilities)
    print("went on", repr((trained.history, trained.best_epoch)))
"""


@pytest.mark.parametrize("augment", ["false", "true"])
def test_goes_on_from_a_checkpoint_to_the_same_digits(tmp_path, augment):
    """In another process; momentum, dropout, augmentation, schedule, batches' order and the best epoch."""
    arguments = ("--train.epochs=4", f"--train.augment={augment}", "--train.schedule.start=2")

    def keep(epoch: int, _, make) -> None:
        (tmp_path / f"{epoch}.checkpoint").write_bytes(make().dump())

    whole = train(*arguments, on_epoch=keep)
    command = [sys.executable, "-c", GO_ON, str(tmp_path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("went on")]
    assert told == [f"went on {(whole.history, whole.best_epoch)!r}"] * 4
    for epoch in (1, 2, 3, 4):
        with np.load(tmp_path / f"{epoch}.npz") as found:
            np.testing.assert_array_equal(found["probabilities"], whole.probabilities)
            for number, weights in enumerate(whole.model.get_weights()):
                np.testing.assert_array_equal(found[f"arr_{number}"], weights)


def lopsided(size: int = 16) -> tuple[LabelledImages, LabelledImages]:
    """Of the training images, one in five is of class 1."""
    data = labelled_images(size=size)
    few = np.flatnonzero((data.labels == 0) | (data.indices % 8 == 1))
    return replace(data, indices=few[few < 60]), replace(data, indices=data.indices[60:])


def train_lopsided(*arguments: str, **more) -> training.Trained:
    params = read("--train.epochs=2", *arguments)
    return training.train(TrainConfig.of(params), TrainingData(*lopsided(), 2), **more)


def test_balanced_weights_are_scikit_learns():
    training_split, _ = lopsided()
    labels = training_split.labels[training_split.indices]
    assert np.bincount(labels).tolist() == [30, 8]
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    found = training.class_weight("balanced", training_split, 2)
    assert [found[0], found[1]] == pytest.approx(expected)
    assert found == {0: pytest.approx(38 / 60), 1: pytest.approx(38 / 16)}
    # a class without a training image needs none
    assert training.class_weight("balanced", training_split, 3) == {
        0: pytest.approx(38 / 90), 1: pytest.approx(38 / 24)
    }  # fmt: skip
    assert training.class_weight("none", training_split, 2) is None


def test_balanced_loss_has_each_class_count_alike():
    """By hand, of weights that do not move: the mean over the classes of each one's mean cross-entropy."""
    still = ("--train.learning_rate=1e-12", "--model.dropout=0", "--train.epochs=1")
    plain, balanced = train_lopsided(*still), train_lopsided(*still, "--train.class_weight=balanced")
    split, _ = lopsided()
    labels, probabilities = split.labels[split.indices], predict(plain.model, split)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    assert plain.history["loss"][0] == pytest.approx(losses.mean(), rel=1e-5)
    by_class = [losses[labels == number].mean() for number in (0, 1)]
    assert balanced.history["loss"][0] == pytest.approx(np.mean(by_class), rel=1e-5)
    assert abs(by_class[0] - by_class[1]) > 0.01
    for name in ("accuracy", "val_loss", "val_accuracy"):
        assert balanced.history[name] == pytest.approx(plain.history[name])


def test_balanced_training_goes_on_to_the_same_digits_and_leaves_graphs_as_they_were():
    kept = []

    def keep(epoch: int, _, make) -> None:
        kept.append(make())

    plain = train_lopsided()
    balanced = train_lopsided("--train.class_weight=balanced", on_epoch=keep)
    assert balanced.history["loss"] != plain.history["loss"]
    assert train_lopsided().history == plain.history
    again = train_lopsided("--train.class_weight=balanced", checkpoint=kept[0])
    assert again.history == balanced.history
    np.testing.assert_array_equal(again.probabilities, balanced.probabilities)


def test_few_photos_of_a_class_are_seen_where_classes_are_balanced(shared):
    """300 cats and 40 dogs: always to say cat is right for 88 of 100, which weights do not let pass."""
    images, labels = photos(shared, {"cat": 340, "dog": 80})
    dogs = np.flatnonzero(labels == 1)
    measured = np.concatenate([np.flatnonzero(labels == 0)[300:], dogs[40:]])
    fitted = np.setdiff1d(np.arange(len(labels)), measured)
    recalls = {}
    for name in ("none", "balanced"):
        params = read("--train.epochs=3", f"--train.class_weight={name}")
        split, validation = (LabelledImages(images, labels, rows) for rows in (fitted, np.sort(measured)))
        trained = training.train(TrainConfig.of(params), TrainingData(split, validation, 2))
        found = metrics.report(labels[np.sort(measured)], trained.probabilities, ("cat", "dog"))
        recalls[name] = found.per_class["dog"]["recall"]
    assert recalls["none"] < 0.2
    assert recalls["balanced"] > recalls["none"] + 0.3


def photos(shared: Path, counts: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """So many real photos of each class, (n, 32, 32, 3) uint8, and their labels."""
    images, labels = [], []
    with zipfile.ZipFile(shared / "data/dogs-vs-cats-8k.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for label, (kind, count) in enumerate(counts.items()):
            for name in [name for name in names if Path(name).name.startswith(f"{kind}.")][:count]:
                with Image.open(archive.open(name)) as image:
                    images.append(np.asarray(image.convert("RGB").resize((32, 32))))
                labels.append(label)
    return np.stack(images), np.array(labels)


def test_another_seed_is_as_if_it_were_the_first():
    """Graphs are kept from seed to seed, the random numbers of dropout and augmentation are not."""
    arguments = ("--train.augment=true", "--train.epochs=1")
    first = train(*arguments, "--seed=5")
    after = train(*arguments, "--seed=6")
    graph_cache._cache.clear()
    alone = train(*arguments, "--seed=6")
    assert after.history == alone.history != first.history
    np.testing.assert_array_equal(after.probabilities, alone.probabilities)


def test_early_stopping_counts_the_epochs_before_a_checkpoint():
    arguments = ("--train.epochs=9", "--train.learning_rate=1e-9", "--train.early_stopping_patience=2")
    kept = []
    train(*arguments, on_epoch=lambda number, _, make: kept.append(make()))
    assert [checkpoint.epoch for checkpoint in kept] == [1, 2, 3]
    for checkpoint in kept:
        assert len(train(*arguments, checkpoint=checkpoint).history["loss"]) == 3


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: content[:5000], lambda _: b""]
)
def test_damaged_checkpoint_is_known(damage):
    kept = []
    train("--train.epochs=1", on_epoch=lambda number, _, make: kept.append(make().dump()))
    assert Checkpoint.load(kept[0]).epoch == 1
    with pytest.raises(ValueError, match="not a valid checkpoint"):
        Checkpoint.load(damage(kept[0]))


def test_checkpoint_with_a_changed_byte_is_known():
    kept = []
    train("--train.epochs=1", on_epoch=lambda number, _, make: kept.append(make().dump()))
    middle = len(kept[0]) // 2
    changed = kept[0][:middle] + bytes([kept[0][middle] ^ 1]) + kept[0][middle + 1 :]
    with pytest.raises(ValueError, match="not a valid checkpoint"):
        Checkpoint.load(changed)


SCRIPT = """
import json, sys
sys.path.insert(0, "tests")
from test_training import train
print(json.dumps(train(*sys.argv[1:]).history))
"""


@pytest.mark.parametrize("augment", ["false", "true"])
def test_two_processes_give_the_same_to_the_last_digit(augment):
    argument = f"--train.augment={augment}"
    train("--train.epochs=1", "--seed=5")  # what was trained before must not matter
    here = train(argument).history
    command = [sys.executable, "-c", SCRIPT, argument]
    there = subprocess.run(command, cwd=ROOT, env=None, capture_output=True, text=True, check=True)
    assert json.loads(there.stdout.splitlines()[-1]) == here
    assert train(argument, "--seed=43").history != here
