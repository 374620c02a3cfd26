"""Self-contained HTML pages: one file each, without network access, for light, dark, phone and print.

A page is a template in `templates/` that extends `base.html.j2`, which documents its blocks and classes;
`pieces.html.j2` has macros for tables and thumbnails.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> bytes:
    """Render a page, as UTF-8.

    Args:
        template: File name in `templates/`, such as `sweep.html.j2`.
        values: The template's variables. Text is escaped, so it may contain markup.
    """
    return _environment.get_template(template).render(values).encode()


def shown(text: str) -> str:
    r"""Text with unprintable characters escaped, such as undecodable bytes as `\udcff`; newlines stay.

    >>> shown("cat\0")
    'cat\\x00'
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def extremes(counts: Mapping[str, int]) -> tuple[list[str], str]:
    """The classes that a table shows: all, or with more than 40 classes the 20 largest and 20 smallest.

    Args:
        counts: Images of each class.

    Returns:
        The names, in order if all are shown, else the largest first; and a sentence on those left out, empty
        if there are none.

    >>> extremes({"cat": 3, "dog": 4})
    (['cat', 'dog'], '')
    """
    if len(counts) <= 2 * _EACH_END:
        return list(counts), ""
    ranked = sorted(counts, key=counts.__getitem__, reverse=True)
    left = len(counts) - 2 * _EACH_END
    note = f"The {_EACH_END} largest and the {_EACH_END} smallest classes; {left:,} more lie between them."
    return ranked[:_EACH_END] + ranked[-_EACH_END:], note


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
