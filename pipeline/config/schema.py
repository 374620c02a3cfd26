"""The sections of params.yaml but `sweep`: each key with its type, range and meaning."""

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.fields import Float, Int, Section, Text, distinct
from pipeline.config.networks import NETWORKS, valid_backbone, valid_weights

if TYPE_CHECKING:
    NetworkName = str
else:
    NetworkName = Literal[tuple(NETWORKS)]
# Keras's names, listed here because importing TensorFlow takes seven seconds; a test compares them.
Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "linear", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "swish", "tanh",
]  # fmt: skip
KernelInitializer = Literal[
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform",
    "orthogonal", "random_normal", "random_uniform", "truncated_normal", "variance_scaling",
]  # fmt: skip
ExportFormat = Literal["keras", "saved_model", "onnx"]

ModelUri = Annotated[str, Field(pattern="^(models|runs):/.", examples=["models:/ID"])]

_MODEL_NAME = "text of up to 256 characters without / : ? and line breaks, other than . and .."
_MODEL_ALIAS = (
    "a letter, then up to 254 letters, digits, - and _; latest and v with a number are reserved by MLflow"
)


def _model_name(name: str) -> str:
    """Validates the name of a registered model: MLflow accepts some that it cannot look up or store."""
    if not name.strip() or name in (".", "..") or len(name) > 256 or re.search(r"[/:?\x00-\x1f\x7f]", name):
        what = f"a name of {len(name):,} characters" if len(name) > 256 else repr(name)
        raise ValueError(f"got {what}; allowed: {_MODEL_NAME}")
    return name


def _model_alias(alias: str) -> str:
    """Validates an alias: MLflow refuses reserved ones only after it has created the version."""
    reserved = alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)
    if reserved or not re.fullmatch(r"[A-Za-z][\w-]{0,254}", alias):
        raise ValueError(f"got {alias!r}; allowed: {_MODEL_ALIAS}")
    return alias


class DataParams(Section):
    """The images and their preparation."""

    source: Text = Field(
        description=(
            "sample (drawn, built in), dogs-vs-cats (downloaded), a folder, a zip, or the URL of a zip"
        )
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = Field(
        description="expected SHA-256 of the zip at a URL; null: not checked"
    )
    image_size: Literal["auto"] | Annotated[Int, Field(ge=16, le=4096)] = Field(
        description="side of the square images after resizing, px; auto: the default size of the network"
    )
    splits: Literal["given", "random"] = Field(
        description=(
            "given: keep train/, val/ and test/ of the source and cut missing ones from train/; "
            "random: pool all images and draw new splits"
        )
    )
    validation: Float = Field(
        gt=0,
        lt=1,
        description=(
            "fraction for the validation split, of all images or of a given train/; stratified by class"
        ),
    )
    test: Float = Field(
        ge=0,
        lt=1,
        description=(
            "fraction for the test split, of the same images; 0: no test split unless the source has one"
        ),
    )
    limit: Annotated[Int, Field(ge=2)] | None = Field(
        description="maximum number of images, drawn evenly over the classes with the seed; null: all"
    )
    max_rejected: Float = Field(
        ge=0, le=1, description="stop if more than this fraction of the images cannot be read"
    )
    verify: bool = Field(
        description=(
            "true: compare all prepared images with their checksums, even if file sizes and times"
            " are unchanged"
        )
    )
    cache: Text = Field(description="folder for downloads and prepared images; relative to the project")

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) leave no training images; "
                "allowed: a sum below 1"
            )
        return self


class ModelParams(Section):
    """The network and its parameters; `networks.NETWORKS` lists the parameters of each network."""

    name: NetworkName = Field(
        description=(
            "simple_cnn; small_resnet: more accurate, from scratch; transfer: pretrained "
            "backbone; vgg16_cam: VGG16 for class activation maps"
        )
    )
    activation: Activation = Field(
        description="simple_cnn, small_resnet: activation of every hidden layer; leaky_relu has slope 0.3"
    )
    kernel_initializer: KernelInitializer = Field(
        description="simple_cnn, small_resnet: kernel initializer of every hidden layer, by Keras's name"
    )
    bias_initializer: Float = Field(
        description="simple_cnn, small_resnet: constant initial value of every bias"
    )
    dropout: Float = Field(ge=0, lt=1, description="dropout rate before the last layer; not in vgg16_cam")
    backbone: Annotated[Text, AfterValidator(valid_backbone)] = Field(
        description=(
            "transfer: the name of a network in keras.applications, or the path of a Keras file without head"
        )
    )
    weights: Annotated[Text, AfterValidator(valid_weights)] = Field(
        description=(
            "transfer, vgg16_cam: imagenet (or those in the Keras file), none, or the path of a file"
        )
    )
    fine_tune_epochs: Int = Field(
        ge=0,
        description="transfer, vgg16_cam: further epochs, after train.epochs, that train the backbone too",
    )
    fine_tune_layers: Int = Field(
        ge=1, description="number of top backbone layers unfrozen; BatchNorm stays frozen"
    )
    fine_tune_learning_rate: Float = Field(
        gt=0, description="initial learning rate of fine-tuning; the schedule restarts"
    )


class ScheduleParams(Section):
    """Step decay of the learning rate: constant for `start` epochs, then reduced every `every` epochs."""

    start: Int = Field(ge=1, description="epochs at the initial learning rate")
    every: Int = Field(ge=1, description="number of epochs after which the learning rate is reduced again")
    factor: Float = Field(gt=0, le=1, description="factor of each reduction; 1: constant learning rate")


class TrainParams(Section):
    """The training of a network."""

    epochs: Int = Field(ge=1, description="passes over the training images")
    batch_size: Int = Field(ge=1, description="images per step")
    learning_rate: Float = Field(gt=0, description="initial learning rate of SGD")
    momentum: Float = Field(ge=0, lt=1, description="momentum of SGD")
    schedule: ScheduleParams
    weight_decay: Float = Field(
        ge=0,
        description=(
            "decoupled weight decay: fraction of the weights, times the learning rate, subtracted per step"
        ),
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        description=(
            "dtype policy: float32, mixed_bfloat16 or mixed_float16; auto: the faster one of "
            "those that the hardware supports"
        )
    )
    augment: Literal["auto"] | bool = Field(
        description=(
            "random flips, shifts, zooms, rotations, brightness and contrast during training; auto: the "
            "default of the network"
        )
    )
    early_stopping_patience: Annotated[Int, Field(ge=1)] | None = Field(
        description="epochs without improvement before stopping; null: off"
    )
    class_weight: Literal["none", "balanced"] = Field(
        description=(
            "class weights in the loss: none, or balanced (inverse class frequency, as scikit-learn's)"
        )
    )
    seed: Annotated[Int, Field(ge=0, lt=2**32)] | None = Field(
        description=(
            "seed of the initial weights, the order of batches and the dropout, not of the "
            "splits; null: the seed above"
        )
    )


class EvaluateParams(Section):
    """The evaluation of a model on one split."""

    run_id: Text | None = Field(description="run whose model is evaluated; null: the newest finished run")
    split: Literal["train", "validation", "test"] = Field(
        description="split that the model is evaluated on: train, validation or test"
    )


class RegisterParams(Section):
    """Model registry settings."""

    name: Annotated[str, AfterValidator(_model_name)] = Field(
        description="registered model that gets a new version"
    )
    alias: Annotated[str, AfterValidator(_model_alias)] = Field(description="alias of the best version")
    run_id: Text | None = Field(
        description="sweep, or run with a model, that is registered; null: the newest sweep"
    )
    significant: bool = Field(
        description="true: move the alias only if the new version is significantly better (p < 0.05)"
    )


class ExplainParams(Section):
    """Class activation maps of a model on images."""

    run_id: Text | None = Field(
        description=(
            "run whose model is explained; null: the champion, or the newest finished run if there is none"
        )
    )
    source: Text | None = Field(
        description=("folder, zip or file of images; null: the most confident errors on the validation split")
    )
    layer: Text | None = Field(
        description=(
            "layer of the class activation map; null: the last layer with spatial output that does not pool"
        )
    )
    class_name: Text | None = Field(
        description="class that is explained; null: the predicted class of each image"
    )
    max_images: Int = Field(ge=1, le=100, description="maximum number of images explained")
    output: Text = Field(description="folder for the figures; relative to the project")


class ReportParams(Section):
    """The report of a sweep."""

    run_id: Text | None = Field(description="run of a sweep or of one of its cells; null: the newest sweep")
    output: Text = Field(description="HTML file of the report; relative to the project")


class PredictParams(Section):
    """The classification of images by a model."""

    source: Text | None = Field(
        description=(
            "images to classify: a folder (searched recursively), a zip, a file, or a JSON list of files"
        )
    )
    model: ModelUri | None = Field(
        description=(
            "URI of the model, e.g. models:/dogs-vs-cats@champion; null: the model and alias under `register`"
        )
    )
    output: Text = Field(
        description=(
            "folder for predictions.csv and contact_sheet.png, or the name of a CSV file; "
            "relative to the project"
        )
    )
    contact_sheet: Int = Field(
        ge=0,
        le=1000,
        description="number of images on the contact sheet, spread evenly over all; 0: no sheet",
    )


class ExportParams(Section):
    """The export of a model to other formats."""

    model: ModelUri | None = Field(
        description=(
            "URI of the model, e.g. models:/dogs-vs-cats@champion; null: the model and alias under `register`"
        )
    )
    formats: Annotated[tuple[ExportFormat, ...], AfterValidator(distinct)] = Field(
        description="formats to write: keras (model.keras), saved_model (saved_model/), onnx (model.onnx)"
    )
    images: Int = Field(ge=1, description="number of validation images on which the formats are compared")
    output: Text = Field(
        description="folder for the export; replaces an earlier export; relative to the project"
    )


class DoctorParams(Section):
    """Checks of the images before training."""

    labels: bool = Field(description="true: train a baseline model and list label-error candidates")
    output: Text = Field(description="folder for doctor.html and findings.csv; relative to the project")
