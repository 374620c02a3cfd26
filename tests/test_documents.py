# ruff: noqa: E501  commands are kept on one line, to be found by a search
"""What the documents say, held against the project: commands, links, the architecture, pre-commit."""

import ast
import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import keras
import pytest
import yaml
from conftest import ROOT, Project
from mlflow import MlflowClient
from PIL import Image

from pipeline.config.command_line import load
from pipeline.sources import sample

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = """
data: {limit: 40, image_size: 32}
train: {epochs: 1}
sweep: {grid: {learning_rate: [0.01, 0.001]}, workers: 1}
doctor: {labels: false}
explain: {max_images: 2}
export: {formats: [keras], images: 4}
"""
# How each command of the documents is run. `run`: here, as it is written, in a folder whose params.yaml is small;
# `dry`: the same with `sweep.dry_run`; else the test, or the script, that runs it, or why nothing does.
_UV = "--env-manager uv"
HOW = {
    f"mlflow run . -e sweep {_UV}": "run",
    f"mlflow run . -e test {_UV}": ".ci/run",
    f"mlflow run . -e register {_UV}": "run",
    "mlflow ui": "docs/screenshots.py::server",
    f"mlflow run . -e doctor {_UV} -P data.source=$HOME/photos": "run",
    f"mlflow run . -e sweep {_UV} -P data.source=$HOME/photos": "run",
    f"mlflow run . -e register {_UV} -P register.name=photos": "run",
    f"mlflow run . -e predict {_UV} -P register.name=photos -P predict.source=$HOME/unsorted": "run",
    "python -m pipeline.steps.train --train.epochs 12": "run",
    f"mlflow run . {_UV} -P train.epochs=12 -P model.activation=swish": "run",
    f"mlflow run . -e sweep {_UV} -P 'sweep.grid.learning_rate=[0.1,0.01,0.001]'": "dry",
    f'mlflow run . -e sweep {_UV} -P \'sweep.grid={{"batch_size":[16,64],"dropout":[0.3,0.5]}}\'': "dry",
    f"mlflow run . {_UV} -P params=mine.yaml": "run",
    "python -m pipeline.steps.main --help": "run",
    # CONTRIBUTING.md
    "sed -n 's/^      - //p' conda.yaml > requirements.txt": "tests/test_documents.py::test_requirements",
    "uv venv -p 3.11 .venv && uv pip install -p .venv/bin/python -r requirements.txt "
    "&& source .venv/bin/activate": ".ci/run",  # as `mlflow run --env-manager uv` does
    'pytest -m "not slow" -n 2': ".ci/run",
    "pytest -n 2 --dist loadfile": ".ci/run",
    "uv tool install pre-commit && pre-commit install": "tests/test_documents.py::test_hooks",
    "ruff check .": "tests/test_house.py::test_code_is_formatted_and_lints",
    "ruff format --check .": "tests/test_house.py::test_code_is_formatted_and_lints",
    "mypy": "tests/test_house.py::test_types",
    'pytest -m "not slow" tests/test_house.py tests/test_glossary.py tests/test_documents.py': ".ci/run",
    "python docs/architecture.py": "tests/test_documents.py::test_architecture_is_drawn",
    f"mlflow run . {_UV} -P model.name=tiny": "tests/test_additions.py::added",
    f"mlflow run . -e sweep {_UV} -P sweep.metric=mcc": "tests/test_additions.py::added",
    f"mlflow run . -e sweep {_UV} -P sweep.sampler=qmc -P sweep.n_trials=16 "
    '-P \'sweep.grid={"learning_rate":{"low":0.001,"high":0.1,"log":true}}\'': "tests/test_additions.py::added",
    # docs/champion.md
    f"mlflow run . -e register {_UV} -P register.run_id=$RUN_ID": "run",
    f"mlflow run . -e evaluate {_UV} -P evaluate.run_id=$RUN_ID": "run",
    # docs/cluster.md
    "export MLFLOW_TRACKING_URI=http://mlflow.example.org:5000": "tests/test_cluster.py::test_sweep_on_a_cluster_of_separate_folders",
    f"mlflow run . -e sweep {_UV} -P sweep.cluster=tcp://scheduler.example.org:8786": "tests/test_cluster.py::test_sweep_on_a_cluster_of_separate_folders",
    f"mlflow run . -e sweep {_UV} -P sweep.cluster=tcp://10.0.0.1:40123": "tests/test_cluster.py::test_sweep_on_a_cluster_of_separate_folders",
    f"mlflow run . -e sweep {_UV} -P sweep.cluster=tcp://localhost:8786": "tests/test_cluster.py::test_sweep_on_a_cluster_of_separate_folders",
    "pip install mlflow==3.17.2 psycopg2-binary boto3": "not run by us: PostgreSQL, S3",
    "mlflow server --host 0.0.0.0 --port 5000 --backend-store-uri "
    "postgresql://user:password@db.example.org/mlflow --artifacts-destination s3://bucket/mlflow "
    "--allowed-hosts mlflow.example.org:5000": "not run by us: PostgreSQL, S3",
    "conda env create -f conda.yaml && conda activate dogs-vs-cats": "not run by us: conda",
    "uv venv -p 3.11 workers": ".ci/run",
    "uv pip install -p workers/bin/python -r requirements.txt": ".ci/run",
    "source workers/bin/activate": ".ci/run",
    "dask scheduler": "tests/test_cluster.py::Cluster",
    "dask worker tcp://scheduler.example.org:8786 --nthreads 8 --memory-limit 16GiB": (
        "tests/test_cluster.py::Cluster"
    ),
    "CUDA_VISIBLE_DEVICES=0 dask worker tcp://scheduler.example.org:8786 --nthreads 4 &": "not run by us: GPUs",
    "CUDA_VISIBLE_DEVICES=1 dask worker tcp://scheduler.example.org:8786 --nthreads 4 &": "not run by us: GPUs",
    "kubectl port-forward service/sweep-scheduler 8786:8786": "not run by us: Kubernetes",
    # docs/data.md
    f"mlflow run . -e prepare {_UV} -P data.source=$HOME/photos": "run",
    f"mlflow run . {_UV} -P train.class_weight=balanced": "tests/test_training.py::test_balanced_weights_are_scikit_learns",
    f'mlflow run . -e sweep {_UV} -P \'sweep.grid.class_weight=["none","balanced"]\' '
    "-P sweep.metric=macro_f1": "dry",
    # docs/networks.md
    f"mlflow run . {_UV} -P model.name=transfer -P train.epochs=10": (
        "tests/test_models.py::test_images_in_probabilities_out_and_safely_loaded_again"  # without ImageNet's weights
    ),
    f"mlflow run . {_UV} -P model.name=transfer -P model.backbone=$HOME/backbone.keras "
    "-P model.fine_tune_epochs=3": "run",
    f"mlflow run . -e sweep {_UV} -P model.name=transfer -P 'sweep.grid.learning_rate=[0.1,0.01,0.001]'": "dry",
    f"mlflow run . {_UV} -P model.name=small_resnet -P train.epochs=80 -P train.weight_decay=0.001 "
    "-P model.dropout=0.3 -P train.schedule.start=50 -P train.schedule.every=12 -P train.schedule.factor=0.2": (
        "tests/test_models.py::test_images_in_probabilities_out_and_safely_loaded_again"
    ),
    f"mlflow run . -e explain {_UV}": "run",
    f"mlflow run . -e explain {_UV} -P explain.source=$HOME/new": "run",
    # docs/serving.md
    f"mlflow run . -e predict {_UV} -P predict.source=$HOME/unsorted": "run",
    f"mlflow models serve -m models:/dogs-vs-cats@champion {_UV} -p 5001": "tests/test_serving.py::address",
    'echo "{\\"dataframe_split\\": {\\"columns\\": [\\"image\\"], \\"data\\": [[\\"$(base64 < cat.jpg | tr -d \'\\n\')\\"]]}}" | '
    "curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @-": (
        "tests/test_serving.py::test_command_of_the_document_is_answered"
    ),
    f"mlflow models serve -m models:/$MODEL_ID {_UV} -p 5001": "tests/test_serving.py::address",
    "curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @pixels.json": (
        "tests/test_logged_models.py"
    ),
    f"mlflow run . -e export {_UV}": "run",
    # docs/sweeps.md
    f"mlflow run . -e sweep {_UV} -P sweep.dry_run=true": "run",
    f"mlflow run . -e sweep {_UV} -P sweep.restart=true": "tests/test_workers.py::test_extended_grid_runs_just_the_new_cells",
    f"mlflow run . -e sweep {_UV} -P sweep.finalists=3 -P sweep.repeats=2": (
        "tests/test_finalists.py::test_finalists_are_trained_again_once"
    ),
    f"mlflow run . -e sweep {_UV} -P sweep.pruner=median -P train.epochs=12": "tests/test_workers.py::test_pruned_sweep",
    f"mlflow run . -e sweep {_UV} -P sweep.sampler=tpe -P sweep.n_trials=30 -P train.epochs=12 "
    '-P \'sweep.grid={"learning_rate":{"low":0.0001,"high":0.1,"log":true},"activation":["relu","tanh"]}\'': (
        "tests/test_workers.py::test_sampler_with_ranges_and_budget"
    ),
    f"mlflow run . -e sweep {_UV} -P sweep.time_budget=3600": (
        "tests/test_workers.py::test_sampler_with_ranges_and_budget"
    ),
    # docs/tracking-servers.md
    "export MLFLOW_TRACKING_URI=http://127.0.0.1:5000": "tests/test_server.py",
    f"mlflow run . -e sweep {_UV} --experiment-name photos": "tests/test_store.py::test_mlflow_run_from_another_folder",
    # docs/troubleshooting.md
    f"mlflow run . -e prepare {_UV} -P log=debug": "run",
    "python -m pipeline.tracking.relocate": "tests/test_store.py",
}


def commands(document: Path) -> list[str]:
    """The commands of a document's blocks, each on one line, without their comments."""
    found = []
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        joined = re.sub(r"\s*\\\n\s*|(?<=\|)\n\s*", " ", block)
        for line in joined.splitlines():
            command = re.sub(r"(^|\s+)# .*", "", line)
            # the README's first command installs what `.ci/run` installs, and ends with this one
            command = command.rpartition("uv && ")[2]
            found += [command] * bool(command)
    return found


def arguments(command: str, variables: dict[str, str]) -> tuple[str, list[str]]:
    """A step, and its arguments as MLflow makes them of `mlflow run`, or as `python -m` has them."""
    words = [re.sub(r"\$(\w+)", lambda match: variables[match[1]], word) for word in shlex.split(command)]
    if words[:2] == ["python", "-m"]:
        return words[2].removeprefix("pipeline.steps."), words[3:]
    assert words[:3] == ["mlflow", "run", "."], command
    step, given = "main", []
    pairs = words[3:]
    assert len(pairs) % 2 == 0, command
    for flag, value in zip(pairs[::2], pairs[1::2], strict=True):
        if flag == "-e":
            step = value
        elif flag == "-P":
            key, _, text = value.partition("=")
            given.append(f"--{key}={text}")
        else:
            assert (flag, value) in {("--env-manager", "uv"), ("--experiment-name", "photos")}, command
    return step, given


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_is_run_somewhere(document):
    assert not [command for command in commands(document) if command not in HOW]


def test_every_row_is_a_command_of_a_document():
    written = {command for document in DOCUMENTS for command in commands(document)}
    assert not set(HOW) - written


@pytest.mark.parametrize("how", sorted({how for how in HOW.values() if "/" in how and "not run" not in how}))
def test_what_runs_a_command_is_there(how):
    file, _, name = how.partition("::")
    assert (ROOT / file).is_file()
    assert not name or re.search(rf"^(def|class) {name}\b", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [
        command
        for command, how in HOW.items()
        if command.startswith("mlflow run")
        and how != "run"
        and "added" not in how
        and "-e test" not in command
    ],
)
def test_arguments_are_valid(command, tmp_path):
    """Those of commands that another test runs with other values; this one checks the ones that are written."""
    _, given = arguments(command, {"HOME": str(tmp_path)})
    assert load(given, ROOT / "params.yaml")


def write_images(folder: Path, count: int, *, labelled: bool) -> None:
    for label in ("cat", "dog"):
        target = folder / label if labelled else folder
        target.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            sample.draw(label, number).save(target / f"{label}{number}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with all that the documents name."""
    home = tmp_path_factory.mktemp("home")
    write_images(home / "photos", 20, labelled=True)
    write_images(home / "unsorted", 2, labelled=False)
    write_images(home / "new", 1, labelled=True)
    inputs = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(4, 3, strides=4)(inputs)
    keras.Model(inputs, features).save(home / "backbone.keras")
    return home


def small_project(folder: Path, **more: object) -> Project:
    project = Project(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    changes = yaml.safe_load(SMALL) | {"sweep": yaml.safe_load(SMALL)["sweep"] | more}
    for section, values in changes.items():
        params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "mine.yaml").write_text(SMALL)
    return project


def run(project: Project, command: str, home: Path, **variables: str) -> str:
    """Run a command as it is written; gives what it prints."""
    step, given = arguments(command, {"HOME": str(home), **variables})
    result = project.run(step, *given, HOME=str(home))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Project:
    """A project in which the README's first commands have been run: a sweep, a champion."""
    project = small_project(tmp_path_factory.mktemp("documents"))
    for command in commands(ROOT / "README.md")[:3]:
        if HOW[command] == "run":
            run(project, command, home)
    return project


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if "run" in map(HOW.get, commands(path))],
    ids=lambda path: path.name,
)
def test_commands_run_as_they_are_written(document, swept, home):
    """Each document's in turn, but those that the fixture has run."""
    (cell, *_) = MlflowClient(swept.uri).search_runs(["0"], "tags.step = 'cell'")
    done = [] if document.name != "README.md" else commands(document)[:3]
    for command in dict.fromkeys(commands(document)):
        if HOW[command] == "run" and command not in done:
            run(swept, command, home, RUN_ID=cell.info.run_id)


@pytest.mark.slow
def test_sweeps_are_planned_as_they_are_written(tmp_path, home):
    project = small_project(tmp_path, dry_run=True)
    for command in [command for command, how in HOW.items() if how == "dry"]:
        assert re.search(r"\d cells", run(project, command, home)), command


def test_requirements(tmp_path):
    """What the documents' `sed` makes of conda.yaml is its list of packages."""
    (tmp_path / "conda.yaml").write_text((ROOT / "conda.yaml").read_text())
    (command,) = {line for path in DOCUMENTS for line in commands(path) if line.startswith("sed")}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    (pip,) = (
        item["pip"]
        for item in yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
        if isinstance(item, dict)
    )
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if "==" in line] == pip
    assert all(line in pip for line in lines)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            path = (document.parent / file).resolve() if file else document
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def test_every_document_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for document in DOCUMENTS[1:]:
        assert f"({document.relative_to(ROOT)})" in readme


def script(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_architecture_is_that_of_the_imports():
    """The list of `pipeline/__init__.py` is in the order of the imports; the README's figure shows both."""
    architecture = script("architecture")
    names = list(architecture.packages())
    assert set(names) == {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    for name, others in architecture.imports().items():
        assert all(names.index(other) < names.index(name) for other in others), name
    with Image.open(architecture.FIGURE) as image:
        assert json.loads(image.text["Description"]) == architecture.graph(), (
            "run `python docs/architecture.py`"
        )


def test_architecture_is_drawn(tmp_path, monkeypatch):
    architecture = script("architecture")
    places = architecture.places()
    assert len(set(places.values())) == len(places), "two boxes at one place: see COLUMNS"
    monkeypatch.setattr(architecture, "FIGURE", tmp_path / "figure.png")
    architecture.draw()
    with Image.open(tmp_path / "figure.png") as image, Image.open(ROOT / "docs/architecture.png") as kept:
        assert image.size == kept.size
        assert image.text == kept.text


def test_screenshots_are_those_of_the_documents():
    """Each image of the README is one that the script takes, or one of a table of others; none is left over."""
    source = (ROOT / "docs/screenshots.py").read_text()
    taken = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("tour-")
    }
    shown = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"\((?:docs/)?([\w-]+)\.(?:png|jpg)\)", path.read_text())
    }
    assert taken - {"tour-*.png"} == {name for name in shown if name.startswith("tour-")}
    assert shown == {path.stem for path in (ROOT / "docs").iterdir() if path.suffix in (".png", ".jpg")}


def test_hooks():
    """pre-commit runs the static checks that CONTRIBUTING.md lists, which the suite runs as well."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    listed = [
        command
        for command in commands(ROOT / "CONTRIBUTING.md")
        if command.startswith(("ruff", "mypy")) or "test_house" in command
    ]
    assert [hook["entry"] for hook in repository["hooks"]] == listed
    for hook in repository["hooks"]:
        assert (hook["language"], hook["pass_filenames"], hook["always_run"]) == ("system", False, True)
    house = (ROOT / "tests/test_house.py").read_text()
    assert all(word in house for word in ('"ruff"', '"check"', '"format", "--check"', '"mypy"'))
