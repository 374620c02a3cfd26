"""Text of a figure: names of any length, in any script, that fit and can be told apart."""

import functools
import textwrap

from matplotlib.font_manager import fontManager, get_font

_FONT = "DejaVu Sans"  # comes with matplotlib


def label(name: str) -> str:
    """A class name for an axis: at most two lines of 18 characters."""
    return "\n".join(textwrap.wrap(short(name).replace("…", "… …"), 18)) or name


def short(name: str) -> str:
    """A class name in at most 35 characters; the ends of long ones tell them apart as the beginnings do."""
    name = drawable(name)
    return name if len(name) <= 35 else f"{name[:17]}…{name[-17:]}"


def drawable(text: str) -> str:
    r"""`text`, with escapes such as \u732b for what no installed font can draw.

    Matplotlib would draw all characters of a script as one and the same box, so that classes could not be
    told apart.
    """
    return "".join(c if c == "\n" or _family(c) else ascii(c)[1:-1] for c in text)


def font(*texts: str) -> dict[str, object]:
    """Text properties that draw `texts` as they are."""
    families = [_FONT, *(_family(c) or _FONT for text in texts for c in text)]
    return {"family": list(dict.fromkeys(families)), "parse_math": False}


@functools.cache
def _family(character: str) -> str | None:
    """The font family that draws a character: matplotlib's own where it can; None where none here can."""
    entries = [entry for entry in fontManager.ttflist if not entry.name.startswith("Last Resort")]
    for entry in sorted(entries, key=lambda entry: (entry.name != _FONT, "Sans" not in entry.name)):
        if get_font(entry.fname).get_char_index(ord(character)):
            return entry.name
    return None
