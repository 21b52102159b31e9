"""Draws photographs of woven fabric, good and with defects, in the folders of MVTec AD.

    python benchmarks/make_fabric.py FOLDER
    capsad run --images FOLDER

They belong to nobody and have exact masks. FOLDER gets train/good, test/good, test/DEFECT and
ground_truth/DEFECT for holes, loose threads and stains. The same seed draws the same files.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from models.files import whole_folder

SIZE = (300, 400)  # height and width
COUNTS = {"train/good": 160, "test/good": 40}
DEFECTS = ("hole", "thread", "stain")
OF_EACH_DEFECT = 20


def main() -> None:
    """Draws everything, then shows it under its name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = np.random.default_rng(given.seed)
    with whole_folder(given.folder) as folder:
        for name, count in COUNTS.items():
            for index in range(count):
                save(fabric(generator), folder / name / f"{index:03d}.png")
        for name in DEFECTS:
            for index in range(OF_EACH_DEFECT):
                image, mask = damaged(fabric(generator), name, generator)
                save(image, folder / "test" / name / f"{index:03d}.png")
                save(mask, folder / "ground_truth" / name / f"{index:03d}_mask.png")


def save(pixels: np.ndarray, path: Path) -> None:
    """Writes uint8 pixels (H, W) or (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)  # a fifth of the default's time


def fabric(generator: np.random.Generator) -> np.ndarray:
    """A piece of twill under a lamp, uint8 (H, W, 3)."""
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width].astype("float32")
    # Threads are not quite even, nor is the cloth quite straight.
    bend = 2 * np.sin(rows / generator.uniform(40, 70) + generator.uniform(0, 6))
    warp = np.sin((columns + bend) * 2 * np.pi / 9 + generator.uniform(0, 6))
    weft = np.sin((rows - bend) * 2 * np.pi / 7 + generator.uniform(0, 6))
    over = np.sin((columns + bend) * np.pi / 9 + rows * np.pi / 7) > 0
    cloth = 0.55 + 0.16 * np.where(over, warp, weft)
    lamp = generator.uniform(0.2, 0.8, 2) * SIZE
    distance = np.hypot(rows - lamp[0], columns - lamp[1]) / width
    light = 1.05 - 0.3 * distance**2
    noise = generator.normal(0, 0.03, SIZE)
    colour = np.array([0.62, 0.72, 0.86]) * generator.uniform(0.95, 1.05)
    pixels = (cloth * light + noise)[..., None] * colour
    return (255 * pixels.clip(0, 1)).astype("uint8")


def damaged(
    image: np.ndarray, defect: str, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The image with a defect, and its mask, uint8 (H, W), 255 where the defect is."""
    height, width = SIZE
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    x, y = generator.uniform(0.2, 0.8, 2) * (width, height)
    if defect == "thread":
        steps = np.cumsum(generator.normal(0, 0.25, 30))
        points = [(x, y)]
        for angle in steps + generator.uniform(0, 6):
            x, y = x + 5 * np.cos(angle), y + 5 * np.sin(angle)
            points.append((x, y))
        draw.line(points, fill=255, width=4)
    else:
        size = 14 if defect == "hole" else 34
        angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        radius = size * generator.uniform(0.7, 1.3, 12)
        points = [
            (x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(radius, angles, strict=True)
        ]
        draw.polygon(points, fill=255)
    share = np.asarray(canvas.filter(ImageFilter.GaussianBlur(2)), "float32")[..., None] / 255
    colour, strength = {
        "hole": ((25, 22, 20), 1.0),
        "thread": ((235, 230, 215), 0.9),
        "stain": ((120, 90, 40), 0.45),
    }[defect]
    mixed = image * (1 - strength * share) + np.array(colour) * strength * share
    return mixed.clip(0, 255).astype("uint8"), np.asarray(canvas)


if __name__ == "__main__":
    main()
