"""The house rules that a machine can hold: floors, one importer of MLflow, one list of dependencies."""

import ast
import re
import subprocess
import sys
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
# A module belongs to the longest name here that it starts with. Imports only point down, or along a floor.
FLOORS = {
    SERVED: 0,
    "pipeline": 0,
    "pipeline.data": 1,
    "pipeline.models": 1,
    "pipeline.training": 1,
    "pipeline.examples": 1,
    "pipeline.features": 1,
    "pipeline.graphs": 1,
    "pipeline.precision": 1,
    "pipeline.checkpoint": 1,
    "pipeline.metrics": 1,
    "pipeline.objective": 1,
    "pipeline.intervals": 1,
    "pipeline.significance": 1,
    "pipeline.comparison": 1,
    "pipeline.markdown": 1,
    "pipeline.pages": 1,
    "pipeline.facts": 1,
    "pipeline.card": 1,
    "pipeline.lettering": 1,
    "pipeline.figures": 1,
    "pipeline.saliency": 1,
    "pipeline.heatmaps": 1,
    "pipeline.exports": 1,
    "pipeline.report": 1,
    "pipeline.predictions": 1,
    "pipeline.doctor": 1,
    "pipeline.tracking": 2,
    "pipeline.trial": 2,
    "pipeline.evaluation": 2,
    "pipeline.gate": 2,
    "pipeline.selection": 2,
    "pipeline.provenance": 2,
    "pipeline.prediction": 2,
    "pipeline.sweep": 2,
    "pipeline.steps": 3,
}


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


def floor(module: str) -> int:
    parts = module.split(".")
    return next(FLOORS[name] for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_point_down(module):
    for other in imports(MODULES[module]) & set(MODULES):
        assert floor(other) <= floor(module), f"{module} imports {other}"


def test_only_tracking_imports_mlflow():
    users = {
        module
        for module, path in MODULES.items()
        if {name.split(".")[0] for name in imports(path)} & {"mlflow"}
    }
    assert users == {module for module in users if module.startswith(("pipeline.tracking", SERVED))}
    assert users


def test_served_code_imports_itself_and_what_its_models_pin():
    allowed = {"keras", "mlflow", "numpy", "pandas", "PIL"}
    for module, path in MODULES.items():
        if module.startswith(SERVED):
            names = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {SERVED}
            assert names <= ({"numpy", "PIL"} if module.endswith("images") else allowed), module
    assert not imports(MODULES[SERVED]), "the pipeline imports its modules one by one"


def test_data_imports_neither_mlflow_nor_tensorflow():
    for module, path in MODULES.items():
        if module.startswith("pipeline.data"):
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


def test_readme_names_the_pinned_mlflow():
    pinned = re.search(r"mlflow==[\d.]+", (ROOT / "conda.yaml").read_text())[0]
    assert set(re.findall(r"mlflow==[\d.]+", (ROOT / "README.md").read_text())) == {pinned}


def test_every_entry_point_is_a_step():
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    steps = {path.stem for path in (ROOT / "pipeline/steps").glob("*.py")} - {"__init__"}
    assert set(entry_points) == steps
    for name, entry in entry_points.items():
        assert entry["command"] == f"python -m pipeline.steps.{name}"


def test_code_is_formatted_and_lints():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(["ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
