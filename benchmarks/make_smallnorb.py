"""Writes files in smallNORB's exact format and size, with drawn shapes in place of the photographs.

    python benchmarks/make_smallnorb.py FOLDER
    capsad run smallnorb --data-dir FOLDER --anomaly car --epochs 1

smallNORB itself is for research alone and cannot be had everywhere: this shows that the whole way
works on its 24,300 stereo pairs a part (450 MB each, uncompressed), and what it takes. Five kinds
of figure made of ellipses stand for the five categories; instance, elevation, azimuth and lighting
vary as there. Figures of merit on these files say nothing about smallNORB.
"""

import argparse
import itertools
import struct
from pathlib import Path

import numpy as np

SIZE = 96
PARTS = {
    "smallnorb-5x46789x9x18x6x2x96x96-training": (4, 6, 7, 8, 9),
    "smallnorb-5x01235x9x18x6x2x96x96-testing": (0, 1, 2, 3, 5),
}
ELEVATIONS, AZIMUTHS, LIGHTINGS = range(9), range(0, 36, 2), range(6)
# Ellipses of each category: along, up, half length, half height and half depth, of the figure.
FIGURES = (
    # animal: body, head, two legs
    ((0, 0.1, 0.7, 0.3, 0.25), (0.8, 0.5, 0.25, 0.22, 0.2), (-0.5, -0.5, 0.1, 0.45, 0.2))
    + ((0.5, -0.5, 0.1, 0.45, 0.2),),
    # human: trunk, head, legs
    ((0, 0.1, 0.25, 0.5, 0.2), (0, 0.85, 0.2, 0.2, 0.2), (-0.15, -0.7, 0.1, 0.5, 0.1))
    + ((0.15, -0.7, 0.1, 0.5, 0.1),),
    # airplane: hull, wings, tail
    ((0, 0, 1.0, 0.14, 0.14), (0.05, 0, 0.2, 0.05, 1.0), (-0.85, 0.25, 0.12, 0.3, 0.05)),
    # truck: box, cab, wheels
    ((-0.2, 0.15, 0.7, 0.45, 0.4), (0.75, -0.05, 0.25, 0.28, 0.35), (-0.5, -0.45, 0.17, 0.17, 0.4))
    + ((0.6, -0.45, 0.17, 0.17, 0.4),),
    # car: hull, roof, wheels
    ((0, -0.1, 0.9, 0.2, 0.4), (-0.05, 0.15, 0.45, 0.22, 0.35), (-0.5, -0.32, 0.18, 0.18, 0.4))
    + ((0.5, -0.32, 0.18, 0.18, 0.4),),
)


def figure(category: int, instance: int, elevation: int, azimuth: int, view: int) -> np.ndarray:
    """Height of the figure's surface towards the viewer, float (SIZE, SIZE), 0 outside."""
    generator = np.random.default_rng([category, instance])
    scale = 30 * generator.uniform(0.8, 1.15)
    turn, tilt = np.deg2rad(10 * azimuth), np.deg2rad(30 + 5 * elevation)
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    surface = np.zeros((SIZE, SIZE))
    for along, up, length, height, depth in FIGURES[category]:
        length, height, depth = (
            half * scale * generator.uniform(0.85, 1.15) for half in (length, height, depth)
        )
        away = -along * np.sin(turn) * scale
        # The nearer an ellipse, the farther apart the two cameras see it.
        column = along * np.cos(turn) * scale + (view - 0.5) * (4 - away / 15)
        row = -up * np.cos(tilt) * scale + away * np.sin(tilt)
        half_width = np.hypot(length * np.cos(turn), depth * np.sin(turn))
        half_height = np.hypot(
            height * np.cos(tilt),
            np.hypot(length * np.sin(turn), depth * np.cos(turn)) * np.sin(tilt),
        )
        inside = 1 - ((columns - column) / half_width) ** 2 - ((rows - row) / half_height) ** 2
        surface = np.maximum(surface, np.sqrt(np.maximum(inside, 0)))
    return surface


def photographs(category: int, instance: int, elevation: int, azimuth: int) -> np.ndarray:
    """A stereo pair under each lighting, uint8 (6, 2, SIZE, SIZE)."""
    taken = np.empty((len(LIGHTINGS), 2, SIZE, SIZE), "uint8")
    ramp = np.linspace(-1, 1, SIZE)
    for view in range(2):
        surface = figure(category, instance, elevation, azimuth, view)
        down, right = np.gradient(surface)
        for lighting in LIGHTINGS:
            angle = lighting * np.pi / 3
            lit = 0.5 + 0.25 * surface + 1.5 * (down * np.sin(angle) + right * np.cos(angle))
            background = 0.75 + 0.1 * (ramp[:, None] * np.sin(angle) + ramp * np.cos(angle))
            grey = np.where(surface > 0, 0.7 * lit, background)
            taken[lighting, view] = np.clip(255 * grey, 0, 255)
    return taken


def header(dtype: str, *shape: int) -> bytes:
    """Magic number, number of dimensions, at least three dimensions: little-endian."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[dtype]
    dimensions = [*shape, *[1] * (3 - len(shape))]
    return struct.pack(f"<Ii{len(dimensions)}i", magic, len(shape), *dimensions)


def main() -> None:
    """Writes the six files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="created where there is none")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, instances in PARTS.items():
        # As there, the category changes fastest but for the lighting.
        poses = [
            (category, instance, elevation, azimuth)
            for instance, elevation, azimuth, category in itertools.product(
                instances, ELEVATIONS, AZIMUTHS, range(len(FIGURES))
            )
        ]
        count = len(poses) * len(LIGHTINGS)
        categories = np.repeat([pose[0] for pose in poses], len(LIGHTINGS)).astype("<i4")
        information = np.array(
            [(*pose[1:], lighting) for pose in poses for lighting in LIGHTINGS], "<i4"
        )
        (folder / f"{prefix}-cat.mat").write_bytes(header("int32", count) + categories.tobytes())
        (folder / f"{prefix}-info.mat").write_bytes(
            header("int32", count, 4) + information.tobytes()
        )
        with (folder / f"{prefix}-dat.mat").open("wb") as file:
            file.write(header("uint8", count, 2, SIZE, SIZE))
            for pose in poses:
                file.write(photographs(*pose).tobytes())
        print(f"{count} stereo pairs: {prefix}")


if __name__ == "__main__":
    main()
