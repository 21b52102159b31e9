import io

import numpy as np
import pytest
from PIL import Image

from components.serving.heatmaps import HeatmapWriter, overlay, stretched
from models.errors import UserError


def test_what_is_usual_stays_grey_and_the_most_unusual_is_red():
    image = np.full((40, 60, 3), 100, "uint8")
    heat = np.zeros((4, 6))
    heat[:, 4:] = 5.0
    drawn = overlay(image, heat)
    assert (drawn.shape, drawn.dtype) == ((40, 60, 3), np.uint8)
    assert (drawn[:, :20] == 100).all()
    red, green, blue = drawn[20, 55].astype(int)
    assert red > 180 and green < 60 and blue < 60
    assert (overlay(image[..., :1], heat) == drawn).all()


def test_the_border_that_an_image_got_has_no_part_in_its_map():
    heat = np.zeros((8, 8))
    heat[:2] = heat[-2:] = 9.0  # where the border of a wide image was
    found = stretched(heat, (200, 400))
    assert found.shape == (200, 400)
    assert np.abs(found[80:120]).max() < 0.1
    heat = np.zeros((8, 8))
    heat[2:4, :2] = 9.0
    found = stretched(heat, (200, 400))
    assert found[:90, :90].min() > 1 and found[:, 200:].max() < 0.1


def test_a_little_unusual_is_yellow():
    drawn = overlay(np.zeros((8, 8, 1), "uint8"), np.full((2, 2), 1.5))
    red, green, blue = drawn[4, 4].astype(int)
    assert red > green > 60 and blue == 0


def png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (value,) * 3).save(buffer, "png")
    return buffer.getvalue()


def test_flagged_images_are_written_under_names_of_their_own(tmp_path):
    writer = HeatmapWriter(str(tmp_path / "maps"))
    outputs = {"anomaly_map": np.stack([np.zeros((2, 3)), np.full((2, 3), 9.0), np.zeros((2, 3))])}
    paths = ["a/1.jpg", "b/1.png", "c/2.png"]
    writer.write_flagged(paths, [png(10), png(20), png(30)], outputs, [True, True, False])
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["1-2.png", "1.png"]
    with Image.open(tmp_path / "maps" / "1.png") as usual:
        assert usual.size == (30, 20)
        assert np.asarray(usual).max() == 10
    assert np.asarray(Image.open(tmp_path / "maps" / "1-2.png"))[..., 0].max() > 150


def test_no_other_picture_is_replaced(tmp_path):
    """Above all not the images themselves, if their folder is given."""
    path = tmp_path / "plate.png"
    Image.fromarray(np.zeros((8, 8), "uint8")).save(path)
    before = path.read_bytes()
    anomaly_map = np.full((2, 2), 5.0)
    with pytest.raises(UserError, match=r"plate\.png is in the way and is no heat map"):
        HeatmapWriter(str(tmp_path)).write("photos/plate.jpg", before, anomaly_map)
    assert path.read_bytes() == before
    folder = tmp_path / "maps"
    written = HeatmapWriter(str(folder)).write(str(path), before, anomaly_map)
    assert HeatmapWriter(str(folder)).write(str(path), before, anomaly_map) == written


def test_a_model_without_an_anomaly_map(tmp_path):
    with pytest.raises(UserError, match="has no anomaly map.*patch_knn"):
        HeatmapWriter(str(tmp_path)).write_flagged(["a"], [png(1)], {}, [True])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot make the folder"):
        HeatmapWriter(str(tmp_path / "file"))


def test_images_of_16_bits_are_not_white(tmp_path):
    values = np.linspace(0, 4095, 600).reshape(20, 30).astype("uint16")
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    path = HeatmapWriter(str(tmp_path)).write("x.png", buffer.getvalue(), np.zeros((2, 3)))
    drawn = np.asarray(Image.open(path))[..., 0].astype(float)
    np.testing.assert_allclose(drawn, values * (255 / 4095), atol=1)


@pytest.mark.parametrize("length", [240, 254])
def test_a_heat_map_that_cannot_be_written_is_named(length, tmp_path):
    name = "x" * length
    with pytest.raises(
        UserError, match=f"{name}.png cannot be written: File name too long"
    ) as told:
        HeatmapWriter(str(tmp_path)).write(name, png(1), np.zeros((2, 3)))
    assert told.value.settings == ("heatmaps",)
    assert not list(tmp_path.iterdir())
