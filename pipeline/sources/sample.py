"""The built-in data set `sample`: cats and dogs that the program draws. They are drawings, not photos.

They need no network and no assets, so that a fresh clone can run a sweep at once; and they are a task, not
a formality: coats, poses, sizes, scenery, light and noise come from the same distributions for both
classes, and only the anatomy tells (ears, eyes, muzzle, nose, whiskers, tongue, tail).

An image takes some 6 ms on one core. Validation accuracy of `simple_cnn` at 64 px (ReLU, he_uniform; best
epoch, mean of seeds 1 to 3): after 5 epochs 0.88 with learning rate 0.01; after 15 epochs 0.97.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageOps

from pipeline.sources.drawing import Coat, Colour, Pen, blob, both, box, ellipse, pair

CLASSES = ("cat", "dog")
PICTURES_PER_CLASS = 400
SIDE = 128  # px of the finished image

SEED = 20130925
CANVAS = 2 * SIDE  # px; drawn twice as large and halved, which smooths the edges
FIELD = 64  # px; soft textures are computed this small and enlarged
UPRIGHT = 0.15  # share of dogs whose ears stand up as cats' do
ASLEEP = 0.1  # share of animals whose eyes are closed
FAR = 0.14  # share of animals that are about half as large as the others
# A plain CNN idles for its first epochs where animals do not stand out; a sweep has time for a few only.
HAZE = 0.4  # share of white in the scenery
CONTRAST = 1.3

BLACK, WHITE, PINK, RED = (24, 18, 22), (252, 250, 246), (226, 136, 132), (238, 66, 84)
COATS = (
    *((234, 138, 52), (84, 76, 82), (124, 124, 132), (206, 180, 146), (208, 156, 92)),
    *((130, 80, 46), (100, 66, 48), (186, 120, 66), (96, 102, 118), (166, 148, 124)),
)
CAT_EYES = ((144, 220, 50), (250, 196, 30), (240, 144, 26), (70, 184, 230), (70, 200, 124))
DOG_EYES = ((62, 36, 22), (92, 54, 26), (44, 30, 28), (120, 76, 36))
SKIES = ((140, 186, 224), (196, 212, 224), (240, 206, 170), (150, 170, 200))
WALLS = ((214, 202, 182), (160, 180, 182), (204, 174, 164), (150, 158, 176), (226, 222, 214), (160, 174, 146))
GREENS = ((104, 148, 82), (150, 158, 96), (84, 124, 90), (184, 170, 120))
FLOORS = ((160, 120, 88), (192, 162, 128), (128, 110, 104), (152, 152, 156))
TOYS = ((204, 78, 70), (70, 124, 190), (230, 190, 84), (106, 162, 102), (222, 140, 164), (150, 108, 174))


def draw(label: str, number: int) -> Image.Image:
    """Draws one image of the data set.

    Args:
        label: One of `CLASSES`.
        number: Which image of that class, from 0; any non-negative number gives another image.

    Returns:
        An RGB image of `SIDE` x `SIDE` px that depends on the arguments alone.

    Raises:
        ValueError: The label is unknown.
    """
    if label not in CLASSES:
        raise ValueError(f"unknown label {label!r}: expected one of {', '.join(CLASSES)}")
    # The scene has its own stream: how many numbers an animal draws must not reach the background.
    scene_rng, animal_rng = np.random.default_rng([SEED, CLASSES.index(label), number]).spawn(2)
    canvas = Pen(scenery(scene_rng), 0j, CANVAS)
    animal(canvas, label, animal_rng)
    if scene_rng.random() < 0.4:
        put(canvas, SMALL, TOYS, 1.02, scene_rng.uniform(0.08, 0.2), scene_rng)
    image = light(canvas.image.reduce(CANVAS // SIDE), scene_rng)
    return ImageOps.mirror(image) if scene_rng.random() < 0.5 else image


def pick(rng: Generator, choices: tuple[Colour, ...]) -> Colour:
    """One of several colours, made a little lighter or darker and warmer or colder."""
    colour = np.array(choices[rng.integers(len(choices))]) + rng.normal(0, 12) + rng.normal(0, 5, 3)
    red, green, blue = colour.clip(0, 255).astype(int).tolist()
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that is `share` of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def cloud(rng: Generator, cells: int) -> np.ndarray:
    """Smooth noise: float32 (FIELD, FIELD), of about unit variance, with `cells` bumps a side."""
    coarse = Image.fromarray(rng.normal(0, 1.3, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((FIELD, FIELD), Image.Resampling.BICUBIC))


def make_coat(rng: Generator) -> Coat:
    """Chooses colours and a pattern (plain, striped or patched) and renders the fur."""
    base, other = pick(rng, COATS), pick(rng, COATS)
    y, x = np.mgrid[:FIELD, :FIELD] / FIELD
    pattern = rng.choice(["plain", "stripes", "patches"], p=[0.4, 0.3, 0.3])
    amount = np.zeros((FIELD, FIELD))
    if pattern == "stripes":
        other = mix(base, BLACK, 0.5)
        amount = 2 * np.sin(rng.uniform(45, 70) * (x + rng.uniform(-0.4, 0.4) * y) + cloud(rng, 6)) - 0.6
    elif pattern == "patches":
        amount = 4 * cloud(rng, 6) - 1.5
    fur = base + np.subtract(other, base) * amount.clip(0, 1)[..., None]
    fur += (7 * cloud(rng, 24) + 24 * (0.45 - y))[..., None]
    texture = Image.fromarray(fur.clip(0, 255).astype(np.uint8)).resize((CANVAS, CANVAS))
    dark = ImageEnhance.Brightness(texture).enhance(rng.uniform(0.45, 0.65))
    return Coat(texture, dark, mix(base, WHITE, rng.choice([0.2, 0.5, 0.85])), mix(base, BLACK, 0.8))


# -- the animal: the unit is half the width of its head, and the middle of the head is 0 ------------------

CAT_HEAD = np.array([-0.8j, 0.5 - 0.76j, 0.94 - 0.32j, 1.06 + 0.18j, 0.74 + 0.6j, 0.3 + 0.8j, 0.84j])
DOG_HEAD = np.array([-0.88j, 0.5 - 0.84j, 0.82 - 0.4j, 0.8 + 0.1j, 0.62 + 0.55j, 0.4 + 0.96j, 1.06j])
CAT_EAR = np.array([0.16 - 0.68j, 0.36 - 1.0j, 0.82 - 1.45j, 1.0 - 0.95j, 1.0 - 0.26j])
FLOPPY_EAR = blob(0.4 - 0.84j, 0.8 - 0.86j, 1.14 - 0.4j, 1.26 + 0.34j, 1.04 + 0.68j, 0.8 + 0.34j, 0.64 - 0.3j)
UPRIGHT_EAR = blob(0.22 - 0.7j, 0.36 - 1.2j, 0.6 - 1.42j, 0.82 - 1.1j, 0.84 - 0.45j)
# A cat's tail is long and thin and curls, a dog's is shorter and tapers.
CAT_TAIL = blob(0, 0.4, 0.75 - 0.5j, 0.6 - 1.1j, 0.95 - 1.5j, 1.1 - 1.3j, 0.85 - 1j, 1 - 0.4j, 0.5 + 0.3j)
DOG_TAIL = blob(-0.3 - 0.1j, 0.25 - 0.2j, 0.55 - 0.6j, 0.75 - 1.2j, 0.85 - 0.6j, 0.6 + 0.05j, -0.2 + 0.35j)


def animal(image: Pen, label: str, rng: Generator) -> None:
    """Draws an animal in one of three poses: its tail and body, then its head."""
    coat = make_coat(rng)
    pose, size, middle, tail = POSES[rng.choice(len(POSES), p=[0.58, 0.22, 0.2])]
    place = 0.5 + 0.5j + rng.uniform(-0.05, 0.05) + 1j * rng.uniform(-0.03, 0.04)
    distance = rng.uniform(1.4, 2.2) if rng.random() < FAR else rng.uniform(0.9, 1.1)
    pen = image.at(place + 0.12j * (distance - 1), size / distance, rng.normal(0, 0.04)).at(-middle)
    outline, face = {"cat": (CAT_TAIL, cat_face), "dog": (DOG_TAIL, dog_face)}[label]
    pen.at(tail, rng.uniform(0.8, 1.1), rng.normal(0, 0.2)).fur(outline, coat)
    pose(pen, coat, rng)
    face(pen.at(0j, rng.uniform(0.95, 1.05), rng.normal(0, 0.12)), coat, rng)


def portrait(pen: Pen, coat: Coat, rng: Generator) -> None:
    """Neck and shoulders; the rest lies below the image."""
    width = rng.uniform(1.1, 1.5)
    pen.fur(both(0.2j, 0.6 + 0.4j, 0.9 + 1j, width + 1.9j, width + 0.3 + 4.5j, 4.6j), coat)
    pen.fill(both(0.8j, 0.5 + 0.9j, 0.6 + 1.5j, 2.2j), coat.pale)


def sitting(pen: Pen, coat: Coat, rng: Generator) -> None:
    """Sits and faces us."""
    pen.fur(both(0.3j, 0.6 + 0.6j, 0.8 + 1.1j, 1.0 + 1.7j, 0.9 + 2.1j, 2.2j), coat)
    pen.fill(both(0.8j, 0.4 + 0.9j, 0.4 + 1.2j, 1.6j), coat.pale)
    leg = blob(0.22 + 1.3j, 0.5 + 1.2j, 0.6 + 1.6j, 0.62 + 2.1j, 0.4 + 2.3j, 0.14 + 2.15j, 0.18 + 1.7j)
    for haunch in pair(ellipse(0.88 + 1.85j, 0.38, 0.4)):
        pen.fur(haunch, coat)
    for outline in pair(leg):
        pen.fur(outline * rng.uniform(0.96, 1.02), coat)


def lying(pen: Pen, coat: Coat, rng: Generator) -> None:
    """Lies with the paws in front and the body behind, to the right."""
    back = (-0.3 + 0.4j, 0.7 - 0.1j, 1.6 - 0.1j, 2.3 + 0.3j, 2.6 + 1j, 2.3 + 1.5j, 1.0 + 1.55j, -0.5 + 1.45j)
    pen.fur(blob(*back), coat)
    pen.fur(ellipse(1.95 + 1.05j, 0.56, 0.5), coat)
    leg = blob(0.9 + 1.05j, 0.95 + 1.5j, 0.2 + 1.62j, -0.7 + 1.66j, -0.95 + 1.5j, -0.7 + 1.3j, 0.1 + 1.15j)
    for shift in (0.5 - 0.1j, rng.uniform(-0.1, 0.1)):
        pen.fur(leg + shift, coat)


# Each pose, its unit as a share of the image, the middle of its outline, the root of its tail.
POSES = (
    (portrait, 0.3, 0.12j, 5j),
    (sitting, 0.23, 0.4j, 0.8 + 1.9j),
    (lying, 0.22, 0.75 + 0.1j, 2.4 + 1.2j),
)


def cat_face(pen: Pen, coat: Coat, rng: Generator) -> None:
    """Pointed ears, slit pupils in large bright eyes, a small muzzle, whiskers."""
    tip = rng.uniform(-0.12, 0.06) + 1j * rng.uniform(-0.1, 0.15)
    upright_ears(pen, CAT_EAR + np.array([0, 0.3, 1, 0.3, 0]) * tip, coat)
    pen.fur(both(*CAT_HEAD * rng.uniform(0.95, 1.05, 7)), coat)
    yaw = rng.uniform(-0.12, 0.12)
    iris = ellipse(0.42, 0.25, 0.24) * rng.uniform(0.92, 1.08)
    eyes(pen.at(yaw - 0.04j), iris, pick(rng, CAT_EYES), rng.uniform(0.25, 0.5), coat, rng)
    muzzle = pen.at(1.3 * yaw + 0.4j)
    for cheek in pair(ellipse(0.17 + 0.05j, 0.24, 0.19)):
        muzzle.fill(cheek, coat.pale)
    mouth = [-0.24 + 0.12j, -0.13 + 0.17j, -0.03 + 0.12j, 0, 0.03 + 0.12j, 0.13 + 0.17j, 0.24 + 0.12j]
    muzzle.line(np.array(mouth), coat.ink)
    for drop in (-0.16, 0.0, 0.16):
        whisker = np.array([0.26 + 0.05j, 0.7 + 0.04j, 1.2 + 0.06j]) + drop * np.array([0.3j, 0.8j, 1.6j])
        for outline in pair(whisker):
            muzzle.line(outline, WHITE, 0.035)
    muzzle.fill(np.array([-0.13 - 0.16j, 0.13 - 0.16j, 0.02j]), pick(rng, (PINK, BLACK)))


def dog_face(pen: Pen, coat: Coat, rng: Generator) -> None:
    """Hanging or upright ears, small dark eyes, a long muzzle with a big nose, often a tongue."""
    upright = rng.random() < UPRIGHT
    if upright:
        upright_ears(pen, UPRIGHT_EAR, coat)
    pen.fur(both(*DOG_HEAD * rng.uniform(0.95, 1.05, 7)), coat)
    yaw = rng.uniform(-0.12, 0.12)
    iris = ellipse(0.36, 0.15, 0.14) * rng.uniform(0.92, 1.08)
    eyes(pen.at(yaw - 0.18j), iris, pick(rng, DOG_EYES), 0.55, coat, rng)
    muzzle = pen.at(1.6 * yaw + 0.5j)
    if rng.random() < 0.6:
        muzzle.fill(both(0.3j, 0.2 + 0.3j, 0.22 + 0.7j, 0.9j), RED)
        muzzle.line(np.array([0.35j, 0.7j]), mix(RED, BLACK, 0.35))
    muzzle.fill(both(-0.42j, 0.26 - 0.32j, 0.46 + 0.12j, 0.3 + 0.42j, 0.36j), coat.pale)
    muzzle.line(np.array([-0.34 + 0.24j, -0.14 + 0.3j, 0.2j, 0j, 0.2j, 0.14 + 0.3j, 0.34 + 0.24j]), coat.ink)
    muzzle.fill(both(-0.3j, 0.24 - 0.26j, 0.25 - 0.08j, 0.06j), BLACK)
    muzzle.fill(ellipse(-0.06 - 0.21j, 0.07, 0.03), mix(BLACK, WHITE, 0.6))
    if not upright:
        for ear in pair(FLOPPY_EAR):
            pen.fur(ear, coat, dark=True)


def upright_ears(pen: Pen, right: np.ndarray, coat: Coat) -> None:
    """Two ears that stand up, pink inside."""
    for ear in pair(right):
        pen.fur(ear, coat, dark=True)
        pen.fill(ear.mean() + (ear - ear.mean()) * 0.55, mix(PINK, coat.ink, 0.25))


def eyes(pen: Pen, iris: np.ndarray, colour: Colour, pupil: float, coat: Coat, rng: Generator) -> None:
    """Two eyes from the outline of the right iris, open or closed; a pupil is so many irises wide."""
    asleep = rng.random() < ASLEEP
    for outline in pair(iris):
        middle = outline.mean()
        rim = outline - middle
        if asleep:
            pen.line(middle + rim[1:14], coat.ink, 0.06)
            continue
        pen.fill(middle + 1.2 * rim, coat.ink)
        pen.fill(outline, colour)
        pen.fill(middle + pupil * rim.real + 0.85j * rim.imag, BLACK)
        pen.fill(middle + 0.24 * rim - abs(rim[0]) * (0.3 + 0.35j), WHITE)


# -- everything else: the same for both classes ----------------------------------------------------------

# Things are two units wide and stand at 0: outlines, each with its share of black (below 0: of white).
FIR = [(box(-0.2 - 1j, 0.4, 1), 0.5), *((np.array([-1 - y, 1 - y, -1.5j - y]), 0) for y in (0.6j, 1.3j, 2j))]
TREE = [(box(-0.15 - 1.5j, 0.3, 1.5), 0.5), (ellipse(-2j, 1, 0.9), 0.1), (ellipse(-0.1 - 2.3j, 0.8, 0.7), 0)]
HILL = [(blob(-6 + 3j, -3 - 1.2j, 0.5 - 0.4j, 3 - 1.6j, 6 + 3j), -0.35)]
WINDOW = [(box(-1.1 - 4.1j, 2.2, 2.2), 0.45), (box(-1 - 4j, 0.95, 2), -0.6), (box(0.05 - 4j, 0.95, 2), -0.6)]
SOFA = [(box(-2 - 1.4j, 4, 1.6), 0), (box(-1.9 - 0.3j, 3.8, 0.9), 0.15), (box(-2.4 - 0.6j, 0.6, 1.4), 0.3)]
PLANT = [(np.array([-0.5j, x - 3j, 0.3 - 0.5j]), 0.1) for x in (-1.5, -0.4, 0.5, 1.4)]
PLANT += [(np.array([-0.7 - 1j, 0.7 - 1j, 0.5, -0.5]), 0.4)]
BALL = [(ellipse(-1j, 1, 1), 0.25), (ellipse(-0.1 - 1.1j, 0.9, 0.9), 0), (ellipse(-1.4j, 0.3, 0.2), -0.5)]
CRATE = [(box(-1 - 1.6j, 2, 1.6), 0), (np.array([-1 - 1.6j, 1 - 1.6j, 1.3 - 2.1j, -0.7 - 2.1j]), 0.3)]
BOWL = [(np.array([-1 - 0.7j, 1 - 0.7j, 0.7, -0.7]), 0), (ellipse(-0.7j, 1, 0.22), 0.3)]

# Colours above and below the horizon; what stands there, and in which colours.
MEADOW = (SKIES, GREENS, (HILL, FIR, TREE), GREENS)
ROOM = (WALLS, FLOORS, (WINDOW, SOFA, PLANT), WALLS + TOYS)
SMALL = (BALL, CRATE, BOWL, PLANT)


def scenery(rng: Generator) -> Image.Image:
    """A meadow or a room with things in it, more or less out of focus; RGB, `CANVAS` px wide."""
    outdoors = rng.random() < 0.5
    skies, grounds, things, colours = MEADOW if outdoors else ROOM
    horizon, above, below = rng.uniform(0.45, 0.75), pick(rng, skies), pick(rng, grounds)
    ends = Image.fromarray(np.array([[above], [mix(above, WHITE, 0.4)]], np.uint8))
    pen = Pen(ends.resize((SIDE, SIDE)), 0j, SIDE)
    for _ in range(rng.integers(1, 4)):
        put(pen, things, colours, horizon + 0.04, 0.1, rng)
    pen.fill(box(1j * horizon, 1, 1), below)
    blade_or_plank = np.array([0, 0.04j if outdoors else 0.2])
    for _ in range(30):
        place = rng.uniform(-0.1, 1) + 1j * rng.uniform(horizon, 1)
        pen.line(place + blade_or_plank, mix(below, BLACK, rng.uniform(0.05, 0.3)), 0.008)
    for _ in range(rng.integers(0, 3)):
        put(pen, SMALL, TOYS, rng.uniform(horizon + 0.08, 0.98), 0.07, rng)
    blurred = pen.image.reduce(int(rng.integers(1, 4))).resize((CANVAS, CANVAS))
    return Image.blend(blurred, Image.new("RGB", blurred.size, WHITE), HAZE)


def put(
    image: Pen, things: tuple[Any, ...], colours: tuple[Colour, ...], foot: float, size: float, rng: Generator
) -> None:
    """Puts one of several things anywhere from left to right, with its foot at that height."""
    pen = image.at(rng.uniform(0, 1) + 1j * foot, size * rng.uniform(0.7, 1.3))
    colour = pick(rng, colours)
    for outline, share in things[rng.integers(len(things))]:
        pen.fill(outline, mix(colour, BLACK if share > 0 else WHITE, abs(share)))


def light(image: Image.Image, rng: Generator) -> Image.Image:
    """Lights the finished image from one side, tints it and adds contrast and the noise of a sensor."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.18)
    gain = rng.uniform(0.9, 1.05) * (1 + depth * (np.cos(angle) * x + np.sin(angle) * y))
    tint = rng.normal(1, 0.03, 3).astype(np.float32)
    lit = CONTRAST * (np.asarray(image) * gain[..., None].astype(np.float32) * tint - 128) + 110
    lit += rng.standard_normal(lit.shape, np.float32) * np.float32(rng.uniform(1, 7))
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))
