"""One decoder: what is trained on is what the served model gets, for every format."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.data import sources
from components.data.decode import decode, decode_image
from components.data.formats import UnreadableError, read_info, to_decodable


def picture(channels=3, size=(61, 47)):
    """Gradients with a noisy square: every transform of JPEG has something to do."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([4 * y % 256, 5 * x % 256, 3 * (x + y) % 256], -1).astype("uint8")
    image[10:20, 10:20] = np.random.default_rng(0).integers(0, 256, (10, 10, 3))
    return image if channels == 3 else image[..., 0]


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(mode="RGB"):
    return Image.fromarray(picture()).convert(mode)


FILES = {
    **{
        f"jpeg, subsampling {s}, quality {q}, {'progressive' if p else 'baseline'}": encoded(
            colour(), "jpeg", subsampling=s, quality=q, progressive=p
        )
        for s in (0, 1, 2)
        for q in (25, 75, 98)
        for p in (False, True)
    },
    "jpeg, grey": encoded(Image.fromarray(picture(1)), "jpeg"),
    "jpeg, CMYK": encoded(colour("CMYK"), "jpeg"),
    **{f"png, {m}": encoded(colour(m), "png") for m in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"gif, {m}": encoded(colour(m), "gif") for m in ("L", "P")},
    "gif, animated": encoded(
        colour("P"), "gif", save_all=True, append_images=[Image.new("P", (47, 61))]
    ),
    **{f"bmp, {m}": encoded(colour(m), "bmp") for m in ("1", "L", "P", "RGB", "RGBA")},
    "webp": encoded(colour(), "webp", lossless=True),
    **{f"tiff, {m}": encoded(colour(m), "tiff") for m in ("1", "L", "RGB", "CMYK")},
    "tiff, two pages": encoded(
        colour(), "tiff", save_all=True, append_images=[Image.new("RGB", (9, 9))]
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_every_format_is_decoded_as_pillow_does_it(name, channels):
    content = FILES[name]
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    if channels == 1:
        expected = np.asarray(Image.fromarray(expected).convert("L"))[..., None]
    found = decode(tf.constant(to_decodable(content)), channels).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_trained_on_is_what_is_served(channels, tmp_path):
    """Every format in one folder: difference 0, by way of a graph as in the exported model."""
    for place, content in enumerate(FILES.values()):
        path = tmp_path / f"{place % 3}" / f"{place}.dat"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    source = sources.get("images", str(tmp_path))
    assert source.channels == 3
    source.adopt(source.index().__class__(**{**vars(source.index()), "channels": channels}))
    served = tf.function(lambda content: decode_image(content, (20, 24), channels))
    part = source.index().parts["train"]
    trained = list(source.read("train", 0, len(part.labels), (20, 24)))
    assert len(trained) == len(FILES)
    for name, image in zip(part.names, trained, strict=True):
        content = to_decodable((tmp_path / str(name)).read_bytes())
        np.testing.assert_array_equal(image, served(tf.constant(content)).numpy())


def test_large_jpegs_are_decoded_at_a_part_of_their_size_but_never_below_twice_the_result():
    photograph = Image.fromarray(picture()).resize((1600, 1200), Image.Resampling.BICUBIC)
    content = tf.constant(encoded(photograph, "jpeg", quality=95))
    for at_least, size in (
        (None, (1200, 1600)),
        ((601, 400), (1200, 1600)),
        ((300, 400), (600, 800)),
        ((75, 100), (150, 200)),
        ((10, 10), (150, 200)),
    ):
        found = decode(content, 3, at_least).numpy()
        assert found.shape[:2] == size
        small = np.asarray(photograph.resize(size[::-1], Image.Resampling.BOX)).astype(int)
        assert np.abs(found - small).mean() < 4


def test_sixteen_bits_are_scaled_by_the_largest_value_of_the_data(tmp_path):
    deep = (np.arange(60 * 40).reshape(60, 40) % 1361).astype("uint16")
    for kind, order in (("png", "<u2"), ("tiff", "<u2"), ("big-endian.tiff", ">u2")):
        path = tmp_path / kind / f"1.{kind}"
        path.parent.mkdir()
        Image.fromarray(deep.astype(order)).save(path)
    assert path.read_bytes().startswith(b"MM")
    source = sources.get("images", str(tmp_path))
    assert (source.channels, source.white) == (1, 1360)
    (warning,) = source.warnings
    assert "3 images have 16 bits: their largest grey value, 1360, becomes white." in warning
    expected = np.rint(deep.astype(float) * 255 / 1360)
    read = list(source.read("train", 0, 3))
    assert len(read) == 3
    for image in read:
        np.testing.assert_array_equal(image[..., 0], expected)
    content = tf.constant((tmp_path / "png" / "1.png").read_bytes())
    served = decode_image(content, (60, 40), 1, source.white).numpy()
    np.testing.assert_array_equal(served[..., 0], expected)
    # Without that knowledge the full range is taken.
    assert decode(content, 1).numpy().max() == round(1360 * 255 / 65535)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"no image", "no image of a known format, or damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "no image of a known format, or damaged"),
    ],
)
def test_what_is_no_image(content, message):
    for look in (read_info, to_decodable):
        with pytest.raises(UnreadableError, match=message):
            look(content)


def test_unsupported_depths_say_what_to_do():
    with pytest.raises(UnreadableError, match="floating point numbers: convert it to 8 or 16"):
        read_info(encoded(Image.fromarray(np.zeros((4, 4), "float32")), "tiff"))


def test_a_limit_of_pixels_is_checked_before_anything_is_decoded(monkeypatch):
    content = encoded(Image.new("1", (2000, 1500)), "png")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    message = "2000x1500 are 3,000,000 pixels, more than the limit of 2,999,999"
    for look in (read_info, to_decodable):
        with pytest.raises(UnreadableError, match=message):
            look(content, 2_999_999)
    assert read_info(content, 3_000_000).width == 2000


@pytest.mark.parametrize(
    ("name", "message"),
    [("webp", "not JPEG, PNG, GIF or BMP"), ("bmp, P", "colours in a palette is not decoded")],
)
def test_the_model_says_which_formats_it_does_not_decode(name, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(tf.constant(FILES[name]), 3)


def test_notes_of_a_rotation_are_seen_and_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(colour(), "jpeg", exif=exif)
    assert read_info(content).is_rotated
    assert not read_info(encoded(colour(), "jpeg")).is_rotated
    assert decode(tf.constant(content), 3).shape == (61, 47, 3)
