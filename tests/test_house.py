"""The house rules that a machine can hold: floors, one importer of MLflow, one list of dependencies."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SERVED = "served_image_classifier"  # what a served model carries
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in (SERVED, "pipeline")
    for path in sorted((ROOT / package).rglob("*.py"))
}
# From the lowest layer up: a package imports only from those before it.
LAYERS = (
    "runtime",
    "config",
    "sources",
    "dataset",
    "models",
    "evaluation",
    "figures",
    "training",
    "pages",
    "tracking",
    "doctor",
    "inference",
    "execution",
    "sweep",
    "reports",
    "steps",
)


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # served code is imported from a model's folder too, beside whatever else is there: relatively
            assert node.level == int(_within(path, node)), f"{path}: {ast.unparse(node)}"
            module = ".".join([SERVED] * node.level + [node.module] * bool(node.module))
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def _within(path: Path, node: ast.ImportFrom) -> bool:
    """Whether an import is one of the served package from itself."""
    return path.parent.name == SERVED and (node.level > 0 or node.module.partition(".")[0] == SERVED)


def layer(module: str) -> int:
    """The number of a module's layer; the served package, and the root of `pipeline`, are the lowest."""
    package, *rest = module.split(".")
    return LAYERS.index(rest[0]) + 1 if package == "pipeline" and rest else 0


def package(module: str) -> list[str]:
    return module.split(".")[: 1 if module.startswith(SERVED) else 2]


def test_every_package_is_a_layer():
    assert {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")} == set(LAYERS)
    assert {path.stem for path in (ROOT / "pipeline").glob("*.py")} == {"__init__"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_lower_layers(module):
    for other in imports(MODULES[module]) & set(MODULES):
        assert layer(other) < layer(module) or package(other) == package(module), f"{module} imports {other}"


@pytest.mark.parametrize("package", LAYERS)
def test_no_package_has_a_cycle(package):
    mine = {name: path for name, path in MODULES.items() if name.startswith(f"pipeline.{package}.")}
    TopologicalSorter({name: imports(path) & set(mine) for name, path in mine.items()}).prepare()


def test_only_tracking_imports_mlflow():
    users = {
        module
        for module, path in MODULES.items()
        if {name.split(".")[0] for name in imports(path)} & {"mlflow"}
    }
    assert users == {module for module in users if module.startswith(("pipeline.tracking", SERVED))}
    assert users


def test_no_module_that_windows_lacks_is_imported():
    lacking = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
    assert not {module for module, path in MODULES.items() if imports(path) & lacking}


def test_served_code_imports_itself_and_what_its_models_pin():
    allowed = {"keras", "mlflow", "numpy", "pandas", "PIL"}
    for module, path in MODULES.items():
        if module.startswith(SERVED):
            names = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {SERVED}
            assert names <= ({"numpy", "PIL"} if module.endswith("images") else allowed), module
    assert not imports(MODULES[SERVED]), "the pipeline imports its modules one by one"


def test_data_imports_neither_mlflow_nor_tensorflow():
    for module, path in MODULES.items():
        if module.startswith("pipeline.dataset"):
            names = {name.split(".")[0] for name in imports(path)}
            assert not names & {"mlflow", "tensorflow", "keras"}, module


def test_prepare_never_imports_tensorflow(project):
    script = (
        "import sys; from pipeline.steps import prepare; sys.argv = ['prepare', '--data.limit=20']; "
        "prepare.main(); assert 'mlflow' in sys.modules; assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project.path,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_dependencies_are_pinned_and_cover_every_import():
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    (pip,) = (item["pip"] for item in conda["dependencies"] if isinstance(item, dict))
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pip)
    assert conda["dependencies"][0] == "python=3.11"
    names = {line.partition("==")[0] for line in pip}
    package = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "annotated_types": "pydantic"}
    package["vl_convert"] = "vl-convert-python"
    tests = {path.stem: path for path in (ROOT / "tests").glob("*.py")}
    for path in [*MODULES.values(), *tests.values()]:
        for name in (
            {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - set(tests)
        ):
            if name not in ("pipeline", SERVED, "benchmarks"):
                assert package.get(name, name.replace("_", "-")) in names, f"{path} imports {name}"


def test_documents_name_the_pinned_mlflow():
    pinned = re.search(r"mlflow==[\d.]+", (ROOT / "conda.yaml").read_text())[0]
    for document in ("README.md", "docs/cluster.md"):
        assert set(re.findall(r"mlflow==[\d.]+", (ROOT / document).read_text())) == {pinned}


def test_every_entry_point_is_a_step():
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    steps = {path.stem for path in (ROOT / "pipeline/steps").glob("*.py")} - {"__init__"}
    assert entry_points.pop("test")["command"].startswith("python -m pytest tests ")
    assert set(entry_points) == steps
    for name, entry in entry_points.items():
        assert entry["command"] == f"python -m pipeline.steps.{name}"


def test_code_is_formatted_and_lints():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(["ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short(module):
    text = MODULES[module].read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_types():
    done = subprocess.run(["mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
