"""Draw the architecture from the packages' imports: `python docs/architecture.py`.

Writes `docs/architecture.png`: a box for each package that `pipeline/__init__.py` lists, and an arrow for
each import between packages that does not follow from others. The PNG's text chunk `Description` is what is
drawn, as JSON; a test compares it with `graph()`.
"""

import ast
import json
import math
import re
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "docs/architecture.png"
# Columns of packages that do not lie in the middle one; rows follow from the imports.
COLUMNS = {
    "doctor": 1,
    "dataset": 1,
    "sources": 1,
    "pages": -1,
    "evaluation": -1,
    "config": -1,
    "figures": -2,
}
WIDTH, HEIGHT = 2.15, 0.56  # of a box; columns are 2.4 apart, rows 0.9, inches
COLUMN, ROW = 2.4, 0.9


def packages() -> dict[str, str]:
    """The description of each package, by its name, in the order of `pipeline/__init__.py`."""
    docstring = ast.get_docstring(ast.parse((ROOT / "pipeline/__init__.py").read_text()))
    assert docstring is not None
    return dict(re.findall(r"^(\w+): +(.+)$", docstring, re.MULTILINE))


def imports() -> dict[str, set[str]]:
    """The other packages that each package imports, by its name."""
    found: dict[str, set[str]] = {name: set() for name in packages()}
    for name, others in found.items():
        for path in (ROOT / "pipeline" / name).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                modules = []
                if isinstance(node, ast.ImportFrom):
                    modules = [f"{node.module}.{alias.name}" for alias in node.names]
                elif isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                others |= {module.split(".")[1] for module in modules if module.startswith("pipeline.")}
        others.discard(name)
    return found


def graph() -> dict[str, list]:
    """What is drawn: the packages with their descriptions, and arrows (importer, imported).

    An import that also follows from others (`steps` imports `reports`, which imports `sweep`) has no arrow.
    """
    direct = imports()
    reached: dict[str, set[str]] = {}
    for name in packages():  # each after all that it imports
        reached[name] = set().union(*({other} | reached[other] for other in direct[name]))
    arrows = [
        [name, other]
        for name in direct
        for other in sorted(direct[name])
        if not any(other in reached[third] for third in direct[name])
    ]
    return {"packages": [list(item) for item in packages().items()], "arrows": arrows}


def places() -> dict[str, tuple[float, float]]:
    """The centre of each box, in inches; a package is in the row above the highest that it imports."""
    rows: dict[str, int] = {}
    for name in packages():
        rows[name] = 1 + max((rows[other] for other in imports()[name]), default=-1)
    return {name: (COLUMN * COLUMNS.get(name, 0), ROW * row) for name, row in rows.items()}


def _ends(importer: tuple[float, float], imported: tuple[float, float]) -> list[tuple[float, float]]:
    """The ends of an arrow on the borders of its boxes: down, or from the side to pass other rows."""
    step = imported[0] - importer[0]
    reach = max(-0.9, min(0.9, step / COLUMN)) * WIDTH / 2
    start = importer[0] + reach, importer[1] - HEIGHT / 2
    if step and importer[1] - imported[1] > 1.5 * ROW:
        start = importer[0] + math.copysign(WIDTH / 2, step), importer[1]
    return [start, (imported[0] - reach, imported[1] + HEIGHT / 2)]


def draw() -> None:
    """Write the figure."""
    centres, data = places(), graph()
    xs, ys = zip(*centres.values(), strict=True)
    width, height = max(xs) - min(xs) + WIDTH + 0.2, max(ys) - min(ys) + HEIGHT + 0.2
    figure = plt.figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(min(xs) - WIDTH / 2 - 0.1, max(xs) + WIDTH / 2 + 0.1)
    axes.set_ylim(min(ys) - HEIGHT / 2 - 0.1, max(ys) + HEIGHT / 2 + 0.1)
    for importer, imported in data["arrows"]:
        start, end = _ends(centres[importer], centres[imported])
        style = {"arrowstyle": "-|>", "color": "#7a8794", "shrinkA": 0, "shrinkB": 0, "linewidth": 0.9}
        axes.annotate("", end, start, arrowprops=style)
    for name, text in data["packages"]:
        x, y = centres[name]
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        axes.add_patch(
            plt.Rectangle(corner, WIDTH, HEIGHT, facecolor="#eef3f8", edgecolor="#3b6ea5", zorder=2)
        )
        axes.text(x, y + 0.16, name, ha="center", va="center", size=9.5, weight="bold", zorder=3)
        lines = textwrap.wrap(text.rstrip(".").replace("`", ""), 38, max_lines=2, placeholder=" …")
        axes.text(x, y - 0.1, "\n".join(lines), ha="center", va="center", size=6.6, zorder=3)
    figure.savefig(FIGURE, dpi=130)
    plt.close(figure)
    _compress(json.dumps(data))


def _compress(description: str) -> None:
    """Reduce the file to 32 colours, and add what it shows."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Description", description)
    with Image.open(FIGURE) as image:
        reduced = image.convert("RGB").quantize(32, dither=Image.Dither.NONE)
    reduced.save(FIGURE, optimize=True, pnginfo=info)


if __name__ == "__main__":
    draw()
    print(FIGURE.relative_to(ROOT))
