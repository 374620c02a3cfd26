"""HTML pages that open from disk: one file each, with nothing to fetch, for light, dark, phone and print.

A page is a template beside this file that extends `base.html.j2`, which says what it gives, and may take
tables and thumbnails from `pieces.html.j2`.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> bytes:
    """A page as a file.

    Args:
        template: name of a template of this package, as `report.html.j2`.
        values: what the template names. Text may hold anything: it is shown as it is, markup and all.
    """
    return _environment.get_template(template).render(values).encode()


def shown(text: str) -> str:
    r"""Text in which all can be seen and stored: undecodable bytes become `\udcff`; newlines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def extremes(counts: Mapping[str, int]) -> tuple[list[str], str]:
    """The classes that a table shows: all, or of more than 40 the 20 largest and the 20 smallest.

    Args:
        counts: images of each class.

    Returns:
        Their names, in order or the largest first, and a sentence that says which; empty where it is all.
    """
    if len(counts) <= 2 * _EACH_END:
        return list(counts), ""
    ranked = sorted(counts, key=counts.get, reverse=True)
    left = len(counts) - 2 * _EACH_END
    said = f"The {_EACH_END} largest and the {_EACH_END} smallest classes; {left:,} more lie between them."
    return ranked[:_EACH_END] + ranked[-_EACH_END:], said


def _shown(value: Any) -> Any:
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_EACH_END = 20  # classes at each end of a table of many
_environment = Environment(
    loader=PackageLoader("pipeline.pages"),
    autoescape=True,
    finalize=_shown,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
