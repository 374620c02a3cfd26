"""Outlines, and a pen that draws them.

Points are complex numbers, x + iy with y pointing down: adding shifts them, multiplying turns and scales.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]


class Coat(NamedTuple):
    """How an animal is coloured; the same choices for both classes."""

    texture: Image.Image  # fur, as wide as the canvas; parts of the body are cut out of it
    dark: Image.Image  # the same for the ears
    pale: Colour  # of the muzzle and the chest
    ink: Colour  # of outlines and shades


class Pen(NamedTuple):
    """Draws in the coordinates of one thing: of the image, of an animal, of a face."""

    image: Image.Image  # RGB canvas, drawn upon in place
    origin: complex  # where the thing's 0 lies on it, px
    turn: complex  # its unit: the length is in px, the angle its tilt

    def at(self, place: complex, size: float = 1.0, tilt: float = 0.0) -> "Pen":
        """A pen for a part at `place`, whose unit is `size` of this one's, tilted clockwise by radians."""
        return Pen(self.image, self.origin + self.turn * place, self.turn * size * np.exp(1j * tilt))

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Complex (n,) -> float64 (n, 2), in px; whole numbers, so that platforms agree on them."""
        return (self.origin + self.turn * points).view(np.float64).reshape(-1, 2).round()

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        """A polygon in one colour."""
        ImageDraw.Draw(self.image).polygon(self.pixels(points).ravel().tolist(), fill=colour)

    def line(self, points: np.ndarray, colour: Colour, width: float = 0.045) -> None:
        """A line through points, so many units and at least one px wide."""
        thickness = max(1, round(width * abs(self.turn)))
        ImageDraw.Draw(self.image).line(self.pixels(points).ravel().tolist(), colour, thickness, "curve")

    def fur(self, points: np.ndarray, coat: Coat, dark: bool = False) -> None:
        """Fills a part of the body with fur, shades its lower right edge and outlines it."""
        depth = round(0.16 * abs(self.turn))
        outline = self.pixels(points)
        left, top = (int(low) - depth for low in outline.min(axis=0))
        right, bottom = (int(high) + depth for high in outline.max(axis=0))
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((outline - (left, top)).ravel().tolist(), fill=255)
        texture = coat.dark if dark else coat.texture
        self.image.paste(texture.crop((left, top, right, bottom)), (left, top), mask)
        shade = ImageChops.subtract(mask, ImageChops.offset(mask, -depth, -depth), scale=4)
        self.image.paste(coat.ink, (left, top, right, bottom), shade)
        self.line(np.append(points, points[0]), coat.ink, 0.05)


def ellipse(centre: complex, rx: float, ry: float) -> np.ndarray:
    """Complex (28,): the outline of an upright ellipse."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return centre + rx * np.cos(angle) + 1j * ry * np.sin(angle)


def box(corner: complex, width: float, height: float) -> np.ndarray:
    """Complex (4,): a rectangle, from its upper left corner."""
    return corner + np.array([0, width, width + 1j * height, 1j * height])


def blob(*points: complex) -> np.ndarray:
    """Complex (6 n,): a closed Catmull-Rom curve through n control points."""
    before, start, end, after = (np.roll(points, -k)[:, None] for k in (-1, 0, 1, 2))
    t = np.arange(6) / 6
    bend = t * (end - before) + t**2 * (2 * before - 5 * start + 4 * end - after)
    curve: np.ndarray = (start + (bend + t**3 * (3 * start - before - 3 * end + after)) / 2).ravel()
    return curve


def both(*half: complex) -> np.ndarray:
    """A blob symmetric about the y axis, from its right half, top to bottom."""
    return blob(*half, *(-point.conjugate() for point in half[-2:0:-1]))


def pair(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same on the right and, mirrored, on the left."""
    return right, -right.conj()
