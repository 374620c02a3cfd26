"""GitHub-flavoured Markdown, which MLflow renders, with user-given names and paths escaped."""

import re
from collections.abc import Iterable, Sequence

from pipeline.runtime.console import shortened

# Characters that begin or end markup anywhere in a line; an underscore within a word does not.
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&#!]|(?<![^\W_])_|_(?![^\W_])")


def escape(text: str, most: int = 60) -> str:
    r"""Text as one line, with markup escaped.

    Unprintable characters, such as newlines and undecodable bytes, become `\n` or `\udcff`. Longer text is
    shortened to `most` characters, its beginning and its end.

    >>> print(escape("a*b_c"))
    a\*b_c
    """
    seen = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return _MARKUP.sub(r"\\\g<0>", shortened(seen, most, (most - 1) // 2))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the caller escapes the cells.

    >>> print(table(["class", "images"], [["cat", "3"]]))
    | class | images |
    | --- | --- |
    | cat | 3 |
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
