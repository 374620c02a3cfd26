"""Mutation testing: break one line of a package at a time, and count how many breaks its tests catch.

    python -m benchmarks.mutants evaluation --count 80

A mutant is a copy of the checkout with one operator, comparison, constant or call exchanged. Its tests run
until the first failure. Survivors are printed as file, line, and the change; some are equivalent.
Each mutant is tested in a fork of one process that has imported the libraries, one after the other.
"""

import argparse
import ast
import contextlib
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {  # of each package, the fastest first
    "dataset": ["splits", "prepared", "photos"],
    "evaluation": [
        "metrics",
        "objective",
        "significance",
        "comparison",
        "predictions",
        "report",
        "intervals",
    ],
    "sweep": ["recorded_sweeps", "selection", "sweep", "finalists", "complete"],
}
TIMEOUT_SECONDS = 180  # a mutant that takes longer is caught
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "len"}


def sites(tree: ast.Module) -> Iterator[int]:
    """The nodes that a mutant can change, as numbers in the order of `ast.walk`."""
    for number, node in enumerate(ast.walk(tree)):
        if _change(copy.deepcopy(node)) and not _is_typing(tree, node.lineno):
            yield number


def mutant(tree: ast.Module, number: int) -> tuple[int, str, str]:
    """The mutant that changes one node: its line, the change in words, and the whole source."""
    changed = copy.deepcopy(tree)
    node = list(ast.walk(changed))[number]
    before = ast.unparse(node)
    _change(node)
    return node.lineno, f"{before} -> {ast.unparse(node)}", ast.unparse(ast.fix_missing_locations(changed))


def _change(node: ast.AST) -> bool:
    """Exchange what a node does; False for a node that has nothing to exchange."""
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in _COMPARISONS:
            node.ops[0] = _COMPARISONS[type(operator)]()
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in _OPERATORS:
            node.op = _OPERATORS[type(operator)]()
        case ast.BoolOp(op=operator):
            node.op = ast.Or() if isinstance(operator, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not()):
            node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=int(value) | float(value)):
            node.value = value + 1
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            node.func.id = _CALLS[name]
        case _:
            return False
    return True


def _is_typing(tree: ast.Module, line: int) -> bool:
    """Whether a line has an import or an annotation, where `|` and numbers compute nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation and node.lineno == line:
            return True
        if isinstance(node, ast.FunctionDef) and node.returns and node.returns.lineno == line:
            return True
        if isinstance(node, ast.Import | ast.ImportFrom | ast.AnnAssign) and node.lineno == line:
            return True
    return False


def is_caught(checkout: Path, tests: list[str]) -> bool:
    """Whether the tests fail in a checkout; they run in a fork of this process, until the first failure."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(checkout)
        sys.path.insert(0, str(checkout))
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        import pytest

        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what tests started
            return status != 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main() -> None:
    """Draw mutants of a package, test each, and print the survivors and the share that was caught."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", choices=TESTS)
    parser.add_argument("--count", type=int, default=80, help="mutants, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True  # which could be taken for that of the next mutant
    import distributed  # noqa: F401
    import mlflow  # noqa: F401
    import pytest  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorflow  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "checkout")
        shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__", "mlruns", "data"))
        (checkout.parent / "shared").symlink_to(ROOT.parent / "shared")
        tests = [f"tests/test_{name}.py" for name in TESTS[options.package]]
        tests = [file for file in tests if (checkout / file).exists()]
        if is_caught(checkout, tests):
            sys.exit(f"the tests fail as they are: pytest {' '.join(tests)}")
        trees = {
            path: ast.parse(path.read_text())
            for path in sorted((checkout / "pipeline" / options.package).glob("*.py"))
        }
        drawn = [(path, number) for path, tree in trees.items() for number in sites(tree)]
        total = len(drawn)
        drawn = random.Random(options.seed).sample(drawn, min(options.count, total))
        caught = 0
        for path, number in drawn:
            original = path.read_text()
            line, change, source = mutant(trees[path], number)
            path.write_text(source)
            if is_caught(checkout, tests):
                caught += 1
            else:
                print(f"survived: {path.relative_to(checkout)}:{line}: {change}", flush=True)
            path.write_text(original)
    print(
        f"{options.package}: {caught} of {len(drawn)} mutants caught ({caught / len(drawn):.0%}), of {total}"
    )


if __name__ == "__main__":
    main()
