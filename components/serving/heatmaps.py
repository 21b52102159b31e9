"""Where an image is unusual: its anomaly map as a transparent heat map over it."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.errors import UserError
from models.files import whole_file
from models.score_names import ANOMALY_MAP

_MARK = "capsad"  # in the file, to tell heat maps from other pictures
_LONGEST_SIDE = 1024
_STRONGEST = 0.65  # share of the colour where the map is hottest


def overlay(image: np.ndarray, anomaly_map: np.ndarray) -> np.ndarray:
    """Draws a heat map over an image, which becomes grey.

    What is no more unusual than normal images are, up to 1, is left as it is; from there the colour
    goes from yellow to red at 3.

    Args:
        image: uint8 array, shape (H, W, 1 or 3).
        anomaly_map: float array, shape (h, w): the output `anomaly_map` of a model.

    Returns:
        uint8 array, shape (H, W, 3).
    """
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    # H, W, 1
    grey = np.asarray(picture.convert("L"), "float32")[..., None]
    # H, W
    heat = np.clip((stretched(anomaly_map, image.shape[:2]) - 1) / 2, 0, 1)
    colour = np.stack([np.ones_like(heat), 1 - heat, np.zeros_like(heat)], axis=-1) * 255
    share = (_STRONGEST * np.minimum(3 * heat, 1))[..., None]
    return np.rint((1 - share) * grey + share * colour).astype("uint8")


def stretched(anomaly_map: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """An anomaly map in the size of its image, without the border that the image got.

    Args:
        anomaly_map: float array, shape (h, w).
        size: height and width (H, W) of the image.

    Returns:
        float32 array, shape (H, W).
    """
    from models.images import bordered_size  # Keras takes seconds to load.

    (height, width), (h, w) = size, anomaly_map.shape
    rows, columns = bordered_size((height, width), (h, w))
    whole = Image.fromarray(anomaly_map.astype("float32")).resize(
        (columns, rows), Image.Resampling.BICUBIC
    )
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.asarray(whole)[top : top + height, left : left + width]


class HeatmapWriter:
    """Writes the heat maps of scored images as PNG files into a folder.

    Args:
        folder: folder that is made if it does not exist. Heat maps of the same names are replaced.

    Raises:
        UserError: if the folder cannot be made.
    """

    def __init__(self, folder: str):
        self._folder = Path(folder)
        self._names: set[str] = set()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot make the folder {folder}: {error.strerror}.", "heatmaps"
            ) from None

    def write_flagged(
        self,
        paths: Sequence[str],
        contents: Sequence[bytes],
        outputs: Mapping[str, np.ndarray],
        flagged: Sequence[bool],
    ) -> None:
        """Writes the heat maps of the images of a batch that are flagged.

        Args:
            paths: paths of the images.
            contents: contents of their files.
            outputs: outputs of the model.
            flagged: whether each image is flagged.

        Raises:
            UserError: if the model has no anomaly map.
        """
        if ANOMALY_MAP not in outputs:
            raise UserError(
                "The model has no anomaly map, so there are no heat maps: take a detector such as "
                "patch_knn, which has one.",
                "heatmaps",
            )
        for place in np.flatnonzero(flagged):
            self.write(paths[int(place)], contents[int(place)], outputs[ANOMALY_MAP][place])

    def write(self, path: str, content: bytes, anomaly_map: np.ndarray) -> str:
        """Writes one heat map.

        Args:
            path: path of the image, after which the file is named.
            content: content of the image file.
            anomaly_map: float array, shape (h, w).

        Returns:
            The path of the file.

        Raises:
            UserError: if another file, such as the image itself, has its name, or it cannot be
                written.
        """
        with Image.open(io.BytesIO(content)) as image:
            picture = _in_8_bits(image).convert("RGB")
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        stem = os.path.splitext(os.path.basename(path))[0]
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}-{count}"
        self._names.add(name)
        target = self._folder / f"{name}.png"
        try:
            if target.exists() and not _is_heat_map(target):
                raise UserError(
                    f"{target} is in the way and is no heat map: give another folder.", "heatmaps"
                )
            with whole_file(target, "wb") as file:
                mark = PngInfo()
                mark.add_text("Software", _MARK)
                # Level 1 takes a fifth of the default's time for photographs.
                Image.fromarray(overlay(np.asarray(picture), anomaly_map)).save(
                    file, "png", pnginfo=mark, compress_level=1
                )
        except OSError as error:
            raise UserError(
                f"The heat map {target} cannot be written: {error.strerror}.", "heatmaps"
            ) from error
        return str(target)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """An image of which Pillow can make RGB; the largest value of 16-bit grey becomes white."""
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    return Image.fromarray((values * (255 / max(1, values.max()))).astype("uint8"))


def _is_heat_map(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == _MARK
    except OSError:
        return False
