"""The sections of params.yaml: each key with its type, its range and what it means."""

import re
from operator import attrgetter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config import scores
from pipeline.config.fields import Float, Int, Section, Text, distinct, leaves
from pipeline.config.networks import NETWORKS, known_backbone, known_weights
from pipeline.config.search_space import Range, grid_section

# Keras's names, written out so that a wrong one is refused without the seven seconds of importing TensorFlow;
# a test compares them with Keras itself.
Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "linear", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "swish", "tanh",
]  # fmt: skip
KernelInitializer = Literal[
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform",
    "orthogonal", "random_normal", "random_uniform", "truncated_normal", "variance_scaling",
]  # fmt: skip
ExportFormat = Literal["keras", "saved_model", "onnx"]

GRID = "sweep.grid."
# The samplers that draw `sweep.n_trials` cells: by Optuna's name for the class, which is given a seed.
SAMPLERS = {"random": "RandomSampler", "tpe": "TPESampler"}

ModelUri = Annotated[str, Field(pattern="^(models|runs):/.", examples=["models:/ID"])]

# a number above zero with its unit
Memory = Annotated[
    str,
    Field(
        pattern=r"^([1-9][0-9]*(\.[0-9]+)?|0\.0*[1-9][0-9]*) ?(B|[kMGT]B|[KMGT]iB)$",
        examples=["4GiB", "500MB"],
    ),
]


_MODEL_NAME = "text of up to 256 characters without / : ? and line breaks, other than . and .."
_MODEL_ALIAS = (
    "a letter, then up to 254 letters, digits, - and _; latest and v with a number are MLflow's own"
)


def _model_name(name: str) -> str:
    """Check a registered model's name: MLflow takes some that it cannot look up or store afterwards."""
    if not name.strip() or name in (".", "..") or len(name) > 256 or re.search(r"[/:?\x00-\x1f\x7f]", name):
        what = f"a name of {len(name):,} characters" if len(name) > 256 else repr(name)
        raise ValueError(f"got {what}; allowed: {_MODEL_NAME}")
    return name


def _model_alias(alias: str) -> str:
    """Check an alias; MLflow refuses the reserved ones only once there is a version."""
    reserved = alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)
    if reserved or not re.fullmatch(r"[A-Za-z][\w-]{0,254}", alias):
        raise ValueError(f"got {alias!r}; allowed: {_MODEL_ALIAS}")
    return alias


class DataParams(Section):
    """Which images, and how they are prepared."""

    source: Text = Field(
        description="`sample` (drawn, built in), `dogs-vs-cats` (download), a folder, a zip, or a zip's URL"
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = Field(
        description="expected SHA-256 of the zip that a URL names; null: not checked"
    )
    image_size: Literal["auto"] | Annotated[Int, Field(ge=16, le=4096)] = Field(
        description="side of the square that images are resized to, px; auto: what the network prefers"
    )
    splits: Literal["given", "random"] = Field(
        description="given: train/, val/ and test/ of the source are kept, what is missing is cut from "
        "train/; random: all are pooled and drawn anew"
    )
    validation: Float = Field(
        gt=0,
        lt=1,
        description="fraction that models are compared on, of all images or of a given train/; stratified "
        "by class",
    )
    test: Float = Field(
        ge=0,
        lt=1,
        description="fraction kept for the winner's report, of the same; 0: no test split but a given one",
    )
    limit: Annotated[Int, Field(ge=2)] | None = Field(
        description="at most so many images, evenly over the classes, drawn by the seed; null: all"
    )
    max_rejected: Float = Field(
        ge=0, le=1, description="stop where more than this fraction of the images cannot be read"
    )
    verify: bool = Field(
        description="read prepared images again and compare them with their sums, even where sizes and "
        "times are unchanged"
    )
    cache: Text = Field(description="folder of downloads and prepared images; relative to the project")

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) leave no images to train on; "
                "allowed: a sum below 1"
            )
        return self


class ModelParams(Section):
    """Which network, and how it is built; a network takes those keys that `networks.NETWORKS` lists."""

    name: Literal[tuple(NETWORKS)] = Field(
        description="the network; small_resnet: stronger, from scratch; transfer: on a network trained "
        "before; vgg16_cam: VGG16 made for class activation maps"
    )
    activation: Activation = Field(
        description="simple_cnn, small_resnet: of every hidden layer; leaky_relu has slope 0.3"
    )
    kernel_initializer: KernelInitializer = Field(
        description="simple_cnn, small_resnet: of every hidden layer, by Keras's name"
    )
    bias_initializer: Float = Field(
        description="simple_cnn, small_resnet: constant that every bias starts from"
    )
    dropout: Float = Field(
        ge=0, lt=1, description="rate of the dropout before the last layer; vgg16_cam has none"
    )
    backbone: Annotated[Text, AfterValidator(known_backbone)] = Field(
        description="transfer: a network of keras.applications by name, or a Keras file without head by path"
    )
    weights: Annotated[Text, AfterValidator(known_weights)] = Field(
        description="transfer, vgg16_cam: imagenet (or those in the Keras file), none, or the path of a file"
    )
    fine_tune_epochs: Int = Field(
        ge=0,
        description="transfer, vgg16_cam: epochs after train.epochs in which the backbone is trained as well",
    )
    fine_tune_layers: Int = Field(
        ge=1, description="so many of the backbone's last layers; batch normalization stays frozen"
    )
    fine_tune_learning_rate: Float = Field(
        gt=0, description="in these epochs, before the schedule, which starts anew"
    )


class ScheduleParams(Section):
    """How the learning rate falls: constant, then by `factor` every `every` epochs."""

    start: Int = Field(ge=1, description="epochs at the full learning rate")
    every: Int = Field(
        ge=1, description="after them the rate is multiplied by `factor` once every so many epochs"
    )
    factor: Float = Field(gt=0, le=1, description="1: a constant learning rate")


class TrainParams(Section):
    """How the network is trained."""

    epochs: Int = Field(ge=1, description="passes over the training images")
    batch_size: Int = Field(ge=1, description="images per step")
    learning_rate: Float = Field(gt=0, description="of stochastic gradient descent, before the schedule")
    momentum: Float = Field(ge=0, lt=1, description="of stochastic gradient descent")
    schedule: ScheduleParams
    weight_decay: Float = Field(
        ge=0, description="each step, weights shrink by this fraction times the learning rate"
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        description="numbers that training computes with; auto: shorter ones where they are native and faster"
    )
    augment: Literal["auto"] | bool = Field(
        description="random flips, shifts, zooms, turns and light in training; auto: what the network prefers"
    )
    early_stopping_patience: Annotated[Int, Field(ge=1)] | None = Field(
        description="stop after so many epochs without a better validation accuracy; null: never"
    )
    class_weight: Literal["none", "balanced"] = Field(
        description="what an image counts in the loss; balanced: a small class's more, so that each class "
        "counts alike"
    )
    seed: Annotated[Int, Field(ge=0, lt=2**32)] | None = Field(
        description="of weights, batches and dropout alone, the splits stay; null: the `seed` above"
    )


class EvaluateParams(Section):
    """Which model is evaluated, and on what."""

    run_id: Text | None = Field(description="the run whose model is evaluated; null: the newest finished one")
    split: Literal["train", "validation", "test"] = Field(description="which images it is evaluated on")


class GridParams(grid_section("Grid", ModelParams, TrainParams)):
    """The lists and ranges that a sweep combines; a key is any key under `model` or `train`."""

    def values(self) -> dict[str, tuple | Range]:
        """What is set, by key (`learning_rate`, `schedule.start`), in the schema's order."""
        values = {key: attrgetter(key)(self) for key, _ in leaves(type(self))}
        return {key: value for key, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if not self.values():
            raise ValueError(
                "the grid has no key; allowed: any key under `model` or `train`, each with a list or a range"
            )
        return self


class SweepParams(Section):
    """Which cells are tried, by how many workers, and what ranks them."""

    grid: GridParams
    metric: Literal[
        "accuracy", "loss", "precision", "recall", "f1",
        "macro_precision", "macro_recall", "macro_f1", *scores.OWN,
    ] = Field(
        description="validation metric that chooses each training's best epoch and ranks the cells; loss is "
        "minimised; macro_…: every class has the same weight"
    )  # fmt: skip
    finalists: Int = Field(
        ge=0, description="so many of the best cells are trained again with other seeds; 0: none"
    )
    repeats: Int = Field(
        ge=1, le=100, description="how many times each finalist is trained again; the mean then ranks them"
    )
    workers: Literal["auto"] | Annotated[Int, Field(ge=1)] = Field(
        description="networks trained at once, each in a process of its own; auto: by cores, memory and "
        "GPUs; 1: in this process"
    )
    cluster: Text | None = Field(
        description="address of a Dask scheduler (tcp://host:port) whose workers train; null: this machine"
    )
    workers_per_gpu: Int = Field(ge=1, description="where there are GPUs: workers that share one")
    worker_memory: Memory | None = Field(
        description="a worker of this machine that takes more memory is ended, as 4GiB; null: no limit"
    )
    retries: Int = Field(ge=0, description="how often a cell whose process died is tried again")
    worker_wait: Annotated[Float, Field(gt=0)] = Field(
        description="seconds without any worker after which the sweep ends unfinished"
    )
    cell_timeout: Annotated[Float, Field(gt=0)] | None = Field(
        description="seconds after which a cell is ended as failed; null: never"
    )
    sampler: Literal["grid", *SAMPLERS] = Field(
        description="grid: every combination; random or tpe: n_trials draws"
    )
    n_trials: Annotated[Int, Field(ge=1)] | None = Field(
        description="cells that random or tpe draw; null with grid"
    )
    pruner: Literal["none", "median", "hyperband"] = Field(
        description="ends cells early whose validation metric falls behind; "
        "none: every cell gets all its epochs"
    )
    time_budget: Annotated[Float, Field(gt=0)] | None = Field(
        description="seconds after which no more cells are started; null: no limit"
    )
    storage: Text | None = Field(
        description="database URL of the study (Optuna's); null: sweeps.db beside mlflow.db, or in data.cache"
    )
    restart: bool = Field(description="true: start the study over; its old runs stay")
    dry_run: bool = Field(description="true: print the cells and what is done, and stop")

    @model_validator(mode="after")
    def _repeats_no_seed_of_its_grid(self) -> Self:
        if self.finalists and self.grid.seed is not None:
            raise ValueError(
                f"sweep.finalists is {self.finalists}, and {GRID}seed is swept as well; leave that out: "
                "finalists are trained with other seeds anyway; or set sweep.finalists to 0"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_sampler(self) -> Self:
        if self.sampler != "grid":
            if self.n_trials is None:
                raise ValueError(
                    f"sweep.n_trials is null; the {self.sampler} sampler has to know how many cells to draw; "
                    "allowed: whole number from 1"
                )
            return self
        for key, value in self.grid.values().items():
            if isinstance(value, Range):
                raise ValueError(
                    f"{GRID}{key} is a range; the grid sampler takes lists; "
                    f"set sweep.sampler to {' or '.join(SAMPLERS)}, and sweep.n_trials"
                )
        if self.n_trials is not None:
            raise ValueError(
                f"sweep.n_trials is {self.n_trials}; the grid sampler trains every combination; "
                f"allowed: null, or sweep.sampler {' or '.join(SAMPLERS)}"
            )
        return self


class RegisterParams(Section):
    """What becomes of the winner."""

    name: Annotated[str, AfterValidator(_model_name)] = Field(
        description="registered model that gets a new version"
    )
    alias: Annotated[str, AfterValidator(_model_alias)] = Field(
        description="alias that the best version carries"
    )
    run_id: Text | None = Field(
        description="the sweep, or the run with a model, to register from; null: the newest sweep"
    )
    significant: bool = Field(
        description="true: the alias moves only where the version is significantly better (p below 0.05)"
    )


class ExplainParams(Section):
    """Which model is asked where it looks, and on what."""

    run_id: Text | None = Field(
        description="the run whose model is explained; null: the champion, or the newest where there is none"
    )
    source: Text | None = Field(
        description="folder, zip or file of images; null: the surest validation mistakes"
    )
    layer: Text | None = Field(
        description="layer whose features are weighed; null: the last that is not flat and does not pool"
    )
    class_name: Text | None = Field(
        description="class that the heat speaks for; null: the predicted one of each image"
    )
    max_images: Int = Field(ge=1, le=100, description="at most so many images are explained")
    output: Text = Field(description="folder that the figures are written to; relative to the project")


class ReportParams(Section):
    """Which sweep is reported on, and where the page goes."""

    run_id: Text | None = Field(description="the sweep's run, or a cell's; null: the newest sweep")
    output: Text = Field(description="the page, an HTML file; relative to the project")


class PredictParams(Section):
    """Which images are classified by which model, and where the answers go."""

    source: Text | None = Field(
        description="images to classify: a folder (any depth), a zip, a file, or files as a JSON list"
    )
    model: ModelUri | None = Field(
        description="URI of the model, as models:/dogs-vs-cats@champion; null: what `register` names"
    )
    output: Text = Field(
        description="folder of predictions.csv and contact_sheet.png, or the CSV's own name; "
        "relative to the project"
    )
    contact_sheet: Int = Field(
        ge=0, le=1000, description="images on the contact sheet, evenly from all; 0: no sheet"
    )


class ExportParams(Section):
    """Which model is written for other programs, as what, and where."""

    model: ModelUri | None = Field(
        description="URI of the model, as models:/dogs-vs-cats@champion; null: what `register` names"
    )
    formats: Annotated[tuple[ExportFormat, ...], AfterValidator(distinct)] = Field(
        description="what is written: model.keras, saved_model/, model.onnx"
    )
    images: Int = Field(ge=1, description="validation images that every format is compared on")
    output: Text = Field(
        description="folder of the export, which replaces an earlier one; relative to the project"
    )


class DoctorParams(Section):
    """How closely the images are looked at before anything is trained."""

    labels: bool = Field(description="true: train a baseline model and list label-error candidates")
    output: Text = Field(description="folder of doctor.html and findings.csv; relative to the project")
