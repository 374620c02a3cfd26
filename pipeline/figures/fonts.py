"""Text in figures: names of any length and script are shortened, escaped and given a font."""

import functools
import textwrap
from typing import Any

from matplotlib.font_manager import fontManager, get_font

from pipeline.runtime.console import shortened

_FONT = "DejaVu Sans"  # ships with Matplotlib


def label(name: str) -> str:
    r"""A class name for an axis: at most two lines of 18 characters.

    >>> label("Pembroke Welsh corgi")
    'Pembroke Welsh\ncorgi'
    """
    return "\n".join(textwrap.wrap(short(name).replace("…", "… …"), 18)) or name


def short(name: str) -> str:
    """A class name in at most 35 characters; long names keep their first and last 17.

    >>> short("a" * 30 + "b" * 30)
    'aaaaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbb'
    """
    return shortened(drawable(name), 35, tail=17)


def drawable(text: str) -> str:
    r"""`text`, with escapes such as \u732b for characters that no installed font has.

    Matplotlib draws every missing character as the same box, which makes class names indistinguishable.
    """
    return "".join(c if c == "\n" or _family(c) else ascii(c)[1:-1] for c in text)


def font(*texts: str) -> dict[str, Any]:
    """Text properties that draw `texts` literally: fonts that have all characters, and no math mode.

    >>> font("cat $5")
    {'family': ['DejaVu Sans'], 'parse_math': False}
    """
    families = [_FONT, *(_family(c) or _FONT for text in texts for c in text)]
    return {"family": list(dict.fromkeys(families)), "parse_math": False}


@functools.cache
def _family(character: str) -> str | None:
    """An installed font family that has a character, Matplotlib's own if possible; None if no family has."""
    entries = [entry for entry in fontManager.ttflist if not entry.name.startswith("Last Resort")]
    for entry in sorted(entries, key=lambda entry: (entry.name != _FONT, "Sans" not in entry.name)):
        if get_font(entry.fname).get_char_index(ord(character)):
            return entry.name
    return None
