"""Formats of image files: told by their content, not by their names.

The decoder (`components.data.decode`) reads JPEG, PNG, GIF and plain BMP. The other formats become
PNG here, by Pillow, where files enter: when examples are made and in the client that scores files.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

MAX_PIXELS = 100_000_000
WHITE = 65535
"""Largest grey value of 16-bit images, unless the data says otherwise."""

# Pillow has a limit of its own for large images; ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*"),
    *(b"II+\x00", b"MM\x00+"),
)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")
_UNSUPPORTED_MODES = {"I": "32 bits", "F": "floating point numbers"}
_EXIF_ORIENTATION = 0x0112


class UnreadableError(ValueError):
    """The file is no image that can be read; the message says why, without the file's name."""


class Info(NamedTuple):
    """What the header of an image file says."""

    format: str
    """JPEG, PNG, GIF, BMP, WEBP or TIFF."""
    mode: str
    """Pillow's name of the kind of pixels, such as L, RGB or I;16."""
    width: int
    height: int
    is_grey: bool
    is_rotated: bool
    """Whether the camera's EXIF note asks for a rotation or a reflection, which is not applied."""
    is_deep: bool
    """Whether its channels have 16 bits."""
    brightest: int
    """Largest grey value of a 16-bit grey image; 0 for other images."""


def looks_like_image(name: str, start: bytes) -> bool:
    """Whether a file has an image's suffix or its content begins like an image.

    Args:
        name: name of the file.
        start: its first 16 bytes or more.
    """
    return name.lower().endswith(_SUFFIXES) or is_image(start)


def is_image(start: bytes) -> bool:
    """Whether content begins like an image of a known format."""
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def read_info(encoded: bytes, max_pixels: int = MAX_PIXELS) -> Info:
    """What an image file says about itself.

    Only the header is read, except that a 16-bit grey image is decoded for its largest value.

    Args:
        encoded: content of the file.
        max_pixels: largest number of pixels that is allowed.

    Raises:
        UnreadableError: if it is no image of a known format, is damaged or has too many pixels.
    """
    with _opened(encoded, max_pixels) as image:
        try:
            # Asked for its notes, Pillow would decode a PNG that has none in its header.
            has_notes = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if has_notes else 1
            deep_grey = image.mode.startswith("I;16")
            brightest = int(np.asarray(image).max()) if deep_grey else 0
        except Exception as error:  # Pillow lets through whatever its decoders raise.
            raise UnreadableError(_reason(error)) from error
        return Info(
            "JPEG" if image.format == "MPO" else str(image.format),
            image.mode,
            image.width,
            image.height,
            image.mode in _GREY_MODES,
            orientation != 1,
            deep_grey or (image.format == "PNG" and encoded[24] == 16),
            brightest,
        )


def to_decodable(encoded: bytes, max_pixels: int = MAX_PIXELS) -> bytes:
    """An image that the decoder reads: the same bytes, or the same pixels as PNG.

    Args:
        encoded: content of an image file.
        max_pixels: largest number of pixels that is allowed.

    Raises:
        UnreadableError: if it is no image of a known format, is damaged or has too many pixels.
    """
    with _opened(encoded, max_pixels) as image:
        is_plain_bmp = image.format == "BMP" and encoded[28:34] == b"\x18\x00\x00\x00\x00\x00"
        if image.format in ("JPEG", "MPO", "PNG", "GIF") or is_plain_bmp:
            return encoded
        try:
            if image.mode.startswith("I;16"):
                # Pillow's own conversion clips values of other byte orders to 255.
                kept = Image.fromarray(np.asarray(image).astype("<u2"))
            else:
                kept = image.convert("L" if image.mode in _GREY_MODES else "RGB")
        except Exception as error:  # Pillow lets through whatever its decoders raise.
            raise UnreadableError(_reason(error)) from error
    buffer = io.BytesIO()
    kept.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _opened(encoded: bytes, max_pixels: int) -> Image.Image:
    if not encoded:
        raise UnreadableError("the file is empty")
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except Exception as error:  # Pillow lets through whatever its decoders raise.
        raise UnreadableError(_reason(error)) from error
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise UnreadableError(
            f"{image.width}x{image.height} are {pixels:,} pixels, more than the limit of "
            f"{max_pixels:,}"
        )
    if image.mode in _UNSUPPORTED_MODES:
        raise UnreadableError(
            f"its pixels have {_UNSUPPORTED_MODES[image.mode]}: convert it to 8 or 16 bits"
        )
    return image


def _reason(error: Exception) -> str:
    if "cannot identify image file" in str(error):
        return "no image of a known format, or damaged"
    return " ".join(str(error).split()) or type(error).__name__
