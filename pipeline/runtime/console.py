"""Console output: human-readable units, shortened lists and names, progress bars, warnings and colours."""

import os
import re
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, TextIO

from tqdm import tqdm

# of SGR, ISO 6429
BOLD, RED, YELLOW = "1", "31", "33"


def warn(text: str) -> None:
    """Prints a warning to stderr."""
    sys.stdout.flush()  # keeps the order of lines if both streams go to one file
    print(f"{styled('warning:', YELLOW, sys.stderr)} {text}", file=sys.stderr, flush=True)


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in `BOLD`, `RED` or `YELLOW` if the stream is a terminal that supports it, else unchanged.

    NO_COLOR, set to any value (https://no-color.org), and TERM=dumb switch styles off.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{style}m{text}\033[0m"


def duration(seconds: float) -> str:
    """A duration in the two largest units.

    >>> duration(0.42), duration(42), duration(142), duration(3900)
    ('0.4 s', '42 s', '2 min 22 s', '1 h 5 min')
    """
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
    """A number of bytes in decimal units.

    >>> file_size(512), file_size(1_500_000), file_size(2_340_000_000)
    ('512 bytes', '1.5 MB', '2.3 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} bytes"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(1234, "image"), counted(2, "class", "classes")
    ('1 image', '1,234 images', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def column_head(key: str) -> str:
    """A parameter or score as the head of a column.

    >>> column_head("schedule.start"), column_head("macro_f1")
    ('Schedule start', 'Macro F1')
    """
    return re.sub(r"\bf1\b", "F1", key.replace("_", " ").replace(".", " ").capitalize(), flags=re.IGNORECASE)


def few(texts: Iterable[str], most: int = 8) -> str:
    """The first `most` texts, and the number of the others; a single further text is listed.

    >>> few(["cat", "dog", "emu"], most=2), few(["cat", "dog", "emu", "fox"], most=2)
    ('cat, dog, emu', 'cat, dog and 2 more')
    """
    shown = list(texts)
    if len(shown) <= most + 1:
        return ", ".join(shown)
    return f"{', '.join(shown[:most])} and {len(shown) - most:,} more"


def shortened(text: str, most: int, tail: int = 0) -> str:
    """The text in at most `most` characters, the last `tail` of them from its end.

    >>> shortened("labrador retriever", 9), shortened("labrador retriever", 9, tail=4)
    ('labrador…', 'labr…ever')
    """
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


class Bar(tqdm):  # type: ignore[type-arg]  # tqdm is generic in its stubs only
    """A progress bar in these units: `predict 1,200/8,000|███    | 12 s, 1 min 8 s left`.

    Args:
        estimate: Show the remaining time, estimated from the elapsed time.
        options: tqdm's; the unit `B` shows sizes in place of counts.
    """

    def __init__(self, estimate: bool = True, **options: Any):
        self._estimate = estimate
        super().__init__(bar_format="{desc} {counts}|{bar}| {times}{postfix}", dynamic_ncols=True, **options)

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """Tqdm's values, with `counts` and `times` for `bar_format`."""
        values = super().format_dict
        done, total, elapsed = values["n"], values["total"], values["elapsed"]
        text = file_size if values["unit"] == "B" else "{:,}".format
        counts = text(done) + (f"/{text(total)}" if total else "")
        times, new = duration(round(elapsed)), done - values["initial"]
        if self._estimate and total and new and (left := round(elapsed / new * (total - done))):
            times += f", {duration(left)} left"
        return {**values, "counts": counts, "times": times}
