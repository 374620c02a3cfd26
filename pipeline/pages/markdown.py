"""Pieces of Markdown (GitHub's kind, which MLflow shows) that a user's names and paths cannot break."""

import re
from collections.abc import Iterable, Sequence

from pipeline.runtime.console import shortened

# What begins or ends markup anywhere in a line; an underscore within a word does not.
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&#!]|(?<![^\W_])_|_(?![^\W_])")


def escape(text: str, most: int = 60) -> str:
    r"""Text of any kind as one line that is shown as it is.

    Markup is escaped; what cannot be seen or stored, such as newlines and undecodable bytes, becomes `\n` or
    `\udcff`. What is shown has at most `most` characters: the beginning and the end, which tells long names
    apart too.
    """
    seen = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return _MARKUP.sub(r"\\\g<0>", shortened(seen, most, (most - 1) // 2))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are escaped where they need to be. Columns of numbers are no other than text."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
