"""How what is printed looks: human units, progress bars, warnings, and colours on a terminal alone."""

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from tqdm import tqdm

# of SGR, ISO 6429
BOLD, RED, YELLOW = "1", "31", "33"


def warn(text: str) -> None:
    """Print what a user should know before going on, though it stops nothing, to stderr."""
    sys.stdout.flush()  # so that lines stay in their order where both go to one file
    print(f"{styled('warning:', YELLOW, sys.stderr)} {text}", file=sys.stderr, flush=True)


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in `BOLD`, `RED` or `YELLOW` where the stream is a terminal that shows it.

    NO_COLOR, set to anything (https://no-color.org), and a terminal that calls itself dumb leave it as it is.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{style}m{text}\033[0m"


def duration(seconds: float) -> str:
    """A time as it is said: `0.4 s`, `42 s`, `2 min 22 s`, `1 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if whole < 3600:
        parts = {"min": minutes, "s": rest}
    else:
        hours, minutes = divmod(round(seconds / 60), 60)
        parts = {"h": hours, "min": minutes}
    return " ".join(f"{number:,} {unit}" for unit, number in parts.items() if number)


def file_size(count: int) -> str:
    """Bytes as they are said: `512 bytes`, `1.5 MB`, `2.3 GB`, in powers of a thousand."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} bytes"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 image`, `1,234 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def few(texts: Sequence[str], most: int = 8) -> str:
    """The first few of any number of texts, and how many more there are.

    >>> few(["cat", "dog"]), few(["cat", "dog", "emu", "fox"], most=2)
    ('cat, dog', 'cat, dog and 2 more')
    """
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


class Bar(tqdm):
    """A progress bar in these units: `predict 1,200/8,000|███    | 12 s, 1 min 8 s left`.

    Args:
        estimate: tell how long it will take by the time that it has taken.
        options: tqdm's; with the unit `B`, sizes stand in place of counts.
    """

    def __init__(self, estimate: bool = True, **options: Any):
        self._estimate = estimate
        super().__init__(bar_format="{desc} {counts}|{bar}| {times}{postfix}", dynamic_ncols=True, **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar is made of."""
        values = super().format_dict
        done, total, spent = values["n"], values["total"], values["elapsed"]
        said = file_size if values["unit"] == "B" else "{:,}".format
        counts = said(done) + (f"/{said(total)}" if total else "")
        times, new = duration(round(spent)), done - values["initial"]
        if self._estimate and total and new and (left := round(spent / new * (total - done))):
            times += f", {duration(left)} left"
        return values | {"counts": counts, "times": times}
