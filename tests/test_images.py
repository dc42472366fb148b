"""Folders of images: read in the order of their names, of one size, and from any mode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from twofold import Autoencoder, data, images, load
from twofold.cli import app
from twofold.errors import DataError, MissingExtraError

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
RNG = np.random.default_rng(0)
GREYS = RNG.integers(0, 256, (30, 6, 7), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (30, 6, 7, 3), dtype=np.uint8)


def written(folder: Path, pixels: NDArray[Any], suffix: str = ".png") -> Path:
    """A folder with one file per image, whose names are in order."""
    folder.mkdir(exist_ok=True)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{i:03}{suffix}")
    return folder


@pytest.mark.parametrize("pixels", [GREYS, COLOURS], ids=["grey", "colour"])
def test_a_folder_becomes_an_array(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    read = images.read(written(tmp_path, pixels))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


def test_rows_come_in_the_order_of_names(tmp_path: Path) -> None:
    for name, grey in {"c.png": 3, "a.png": 1, "b.png": 2}.items():
        Image.new("L", (2, 2), grey).save(tmp_path / name)
    assert images.read(tmp_path)[:, 0, 0].tolist() == [1, 2, 3]
    assert [path.name for path in images.paths(tmp_path)] == ["a.png", "b.png", "c.png"]


def test_jpeg_files_are_read(tmp_path: Path) -> None:
    smooth = np.full((2, 16, 16, 3), (200, 100, 50), np.uint8)
    read = images.read(written(tmp_path, smooth, ".jpg"))
    np.testing.assert_allclose(read, smooth, atol=3)


def test_a_pattern_names_some_and_reaches_into_subfolders(tmp_path: Path) -> None:
    written(tmp_path / "one", GREYS[:2])
    written(tmp_path / "two", GREYS[2:5])
    assert len(images.read(f"{tmp_path}/**/*.png")) == 5
    assert len(images.read(f"{tmp_path}/two/*.png")) == 3
    assert len(data.load(tmp_path / "one" / "000.png")) == 1


def test_other_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path, GREYS[:2])
    (tmp_path / "notes.txt").write_text("two images")
    (tmp_path / "._000.png").write_bytes(b"of another program")
    assert len(images.read(tmp_path)) == 2


def test_one_colour_image_makes_all_rows_colours(tmp_path: Path) -> None:
    written(tmp_path, GREYS[:2])
    Image.fromarray(COLOURS[0]).save(tmp_path / "z.png")
    assert images.read(tmp_path).shape == (3, 6, 7, 3)
    assert images.read(tmp_path, grey=True).shape == (3, 6, 7)


def test_grey_images_become_colours_on_request(tmp_path: Path) -> None:
    read = images.read(written(tmp_path, GREYS[:2]), grey=False)
    np.testing.assert_array_equal(read, np.repeat(GREYS[:2, :, :, None], 3, axis=3))


def test_images_are_brought_to_a_size(tmp_path: Path) -> None:
    written(tmp_path, GREYS[:2])
    Image.new("L", (20, 10), 90).save(tmp_path / "z.png")
    read = images.read(tmp_path, size=(4, 5))
    assert read.shape == (3, 4, 5)
    assert (read[2] == 90).all()


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.array([[[0, 256, 65_535]]], np.uint16)
    assert images.read(written(tmp_path, deep)).tolist() == [[[0, 1, 255]]]


def test_black_and_white_is_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert images.read(tmp_path).tolist() == [[[255, 0]]]


def test_transparent_places_are_white(tmp_path: Path) -> None:
    half = np.array([[[0, 0, 0, 0], [10, 20, 30, 255]]], np.uint8)
    Image.fromarray(half).save(tmp_path / "a.png")
    assert images.read(tmp_path).tolist() == [[[[255, 255, 255], [10, 20, 30]]]]


def test_photographs_stand_as_the_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert images.read(tmp_path).shape == (1, 8, 4, 3)


def test_images_of_several_sizes_are_refused_by_name(tmp_path: Path) -> None:
    written(tmp_path, GREYS[:3])
    Image.new("L", (9, 6)).save(tmp_path / "odd.png")
    message = r"3 are 6 x 7 pixels, odd.png is 6 x 9. .*images.read\(.*, size=\(6, 7\)\)"
    with pytest.raises(DataError, match=message):
        images.read(tmp_path)


def test_of_many_odd_sizes_some_are_named(tmp_path: Path) -> None:
    written(tmp_path, GREYS[:9])
    for i in range(5):
        Image.new("L", (9 + i, 6)).save(tmp_path / f"odd{i}.png")
    with pytest.raises(DataError, match="odd2.png is 6 x 11 and 2 more are of other sizes"):
        images.read(tmp_path)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda whole: whole[:60],
    "head alone": lambda whole: whole[:20],
    "empty": lambda whole: b"",
    "no image": lambda whole: b"GIF89a",
    "altered": lambda whole: whole[:48] + b"????" + whole[52:],
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_image_is_refused_by_name(how: str, tmp_path: Path) -> None:
    written(tmp_path, GREYS[:3])
    broken = tmp_path / "001.png"
    broken.write_bytes(BROKEN[how](broken.read_bytes()))
    with pytest.raises(DataError, match=r"001\.png cannot be read as an image"):
        images.read(tmp_path)


def test_other_formats_are_not_decoded(tmp_path: Path) -> None:
    Image.fromarray(GREYS[0]).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="cannot be read as an image"):
        images.read(tmp_path)


def test_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image; images end in \.png"):
        images.read(tmp_path / "*.png")


@pytest.mark.parametrize("size", [(0, 4), (4,)])
def test_a_size_that_is_none_is_refused(size: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be height and width in pixels"):
        images.read(written(tmp_path, GREYS[:2]), size=size)


def test_pillow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GREYS[:2])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"twofold\[images\]"):
        images.read(tmp_path)


def test_images_have_no_columns_to_drop(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no columns to drop"):
        data.load(written(tmp_path, GREYS[:2]), drop=["x0"])


def test_tables_beside_images_are_what_a_folder_holds(tmp_path: Path) -> None:
    written(tmp_path, GREYS[:2])
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert data.load(tmp_path).num_rows == 1


def test_a_model_learns_from_a_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "images", GREYS)
    options: dict[str, Any] = {"n_components": 3, "epochs": 1, "random_state": 0}
    ae = Autoencoder(**options, hidden_layers=("conv:4:3:2",)).fit(folder)
    again = Autoencoder(**options, hidden_layers=("conv:4:3:2",)).fit(GREYS)
    assert {column.kind for column in ae.schema_.columns} == {"pixel"}
    np.testing.assert_array_equal(ae.transform(folder), again.transform(GREYS))


def test_the_command_line_takes_a_folder(tmp_path: Path) -> None:
    folder, model, codes = written(tmp_path / "images", GREYS), tmp_path / "m", tmp_path / "c.npy"
    layers = ["--hidden-layers", "conv:4:3:2,8", "--n-components", "3", "--epochs", "1"]
    for command in (
        ["fit", str(folder), "--output", str(model), *layers, "--random-state", "0"],
        ["encode", str(model), str(folder), "--output", str(codes)],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.load(codes), load(model).transform(GREYS))
