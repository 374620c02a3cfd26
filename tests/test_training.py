"""Training: the network, the schedule, the order of batches, the best epoch, determinism."""

import json
import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import models, training
from pipeline.arguments import load
from pipeline.checkpoint import Checkpoint
from pipeline.examples import Batches, Examples, predict
from pipeline.schema import ScheduleParams

ROOT = Path(__file__).parents[1]


def read(*arguments: str):
    return load(arguments, ROOT / "params.yaml")


def examples(count: int = 96, size: int = 16) -> Examples:
    """Dark pictures of class 0 and light ones of class 1, with noise."""
    rng = np.random.default_rng(7)
    labels = np.arange(count) % 2
    images = rng.integers(0, 120, (count, size, size, 3)) + 60 * labels[:, None, None, None]
    return Examples(images.astype(np.uint8), labels, np.arange(count))


def halves(data: Examples) -> tuple[Examples, Examples]:
    middle = len(data.indices) // 2
    return (
        Examples(data.images, data.labels, data.indices[:middle]),
        Examples(data.images, data.labels, data.indices[middle:]),
    )


def train(*arguments: str, **more) -> training.Trained:
    params = read("--data.image_size=16", "--train.epochs=3", *arguments)
    return training.train(params.model, params.train, *halves(examples()), 2, params.seed, **more)


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
    pictures = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    answer = again.predict(pictures, verbose=0)
    np.testing.assert_array_equal(answer, model.predict(pictures, verbose=0))
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
    rates = [training.learning_rate(0.01, schedule, epoch) for epoch in range(1, 22)]
    assert rates[:10] == [0.01] * 10
    assert rates[10:15] == pytest.approx([0.001] * 5)
    assert rates[15:20] == pytest.approx([0.0001] * 5)
    assert rates[20] == pytest.approx(0.00001)


def test_schedule_is_what_the_optimizer_gets():
    history = train("--train.schedule.start=1", "--train.schedule.every=1").history
    assert history["learning_rate"] == pytest.approx([0.01, 0.001, 0.0001])


def test_every_picture_once_an_epoch_and_another_order_the_next():
    data = examples(count=10)
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
    _, validation = halves(examples())
    labels = validation.labels[validation.indices]
    np.testing.assert_array_equal(predict(trained.model, validation), trained.probabilities)
    assert (trained.probabilities.argmax(axis=1) == labels).mean() == accuracies[best]


def test_validation_loss_is_keras_own():
    trained = train()
    _, validation = halves(examples())
    labels = validation.labels[validation.indices]
    trained.model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = trained.model.evaluate(validation.images[validation.indices], labels, verbose=0)
    best = trained.best_epoch - 1
    assert trained.history["val_loss"][best] == pytest.approx(loss, rel=1e-5)
    assert trained.history["val_accuracy"][best] == pytest.approx(accuracy)


def test_calls_back_every_epoch_with_all_metrics():
    seen = []
    train(on_epoch=lambda epoch, values, _: seen.append((epoch, set(values))))
    assert seen == [(epoch, set(training.METRICS)) for epoch in (1, 2, 3)]


def test_early_stopping():
    # nothing can be learned at this rate, so the first epoch stays the best
    trained = train("--train.epochs=9", "--train.learning_rate=1e-9", "--train.early_stopping=2")
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
    np.testing.assert_array_equal(augmented.probabilities, predict(augmented.model, halves(examples())[1]))


def test_stops_where_it_is_told():
    assert len(train(on_epoch=lambda epoch, *_: epoch == 2).history["loss"]) == 2


GO_ON = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import numpy as np
from test_training import train
from pipeline.checkpoint import Checkpoint
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


def test_early_stopping_counts_the_epochs_before_a_checkpoint():
    arguments = ("--train.epochs=9", "--train.learning_rate=1e-9", "--train.early_stopping=2")
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
    with pytest.raises(ValueError, match="no checkpoint"):
        Checkpoint.load(damage(kept[0]))


def test_checkpoint_with_a_changed_byte_is_known():
    kept = []
    train("--train.epochs=1", on_epoch=lambda number, _, make: kept.append(make().dump()))
    middle = len(kept[0]) // 2
    changed = kept[0][:middle] + bytes([kept[0][middle] ^ 1]) + kept[0][middle + 1 :]
    with pytest.raises(ValueError, match="no checkpoint"):
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
