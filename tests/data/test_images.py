"""Folders of images: read in the order of their names, of one size, and from any mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from twofold import Autoencoder, Conv, Files, datasets, load
from twofold.cli.main import app
from twofold.data import files, formats, images, memory
from twofold.data.files import OpenFiles
from twofold.errors import DataError, SkippedFilesWarning

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
    assert len(files.load(tmp_path / "one" / "000.png")) == 1


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


def test_images_have_no_columns_to_drop(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no names of columns to drop"):
        files.load(written(tmp_path, GREYS[:2]), drop=["x0"])


def test_tables_beside_images_are_what_a_folder_holds(tmp_path: Path) -> None:
    written(tmp_path, GREYS[:2])
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert files.load(tmp_path).num_rows == 1


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


# --- streamed: pixels stay on disk


DIGITS = datasets.digits()
QUICK: dict[str, Any] = {"n_components": 6, "epochs": 2, "random_state": 0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digits as files, of which some hundred are a part."""
    monkeypatch.setattr(formats, "PART_BYTES", 100 * 64)
    return written(tmp_path / "pictures", DIGITS.train[:900])


@pytest.mark.parametrize("layers", [(20,), (Conv(4, 3, stride=2),)], ids=["dense", "conv"])
def test_streamed_images_teach_the_same_bits_as_an_array_on_disk(
    folder: Path, layers: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "pictures.npy", DIGITS.train[:900])
    nets = [
        Autoencoder(hidden_layers=layers, **QUICK).fit(Files(source, stream=True))
        for source in (folder, tmp_path / "pictures.npy")
    ]
    for one, other in zip(*(net.network_.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)
    assert nets[0].schema_.row_shape == (8, 8)


@pytest.mark.parametrize("verb", ["transform", "reconstruct", "score_samples"])
def test_verbs_take_images_part_by_part(folder: Path, verb: str) -> None:
    ae = Autoencoder(hidden_layers=(20,), **QUICK).fit(DIGITS.train)
    found = getattr(ae, verb)(Files(folder, stream=True))
    np.testing.assert_array_equal(found, getattr(ae, verb)(DIGITS.train[:900]))


def test_images_that_fit_into_memory_are_read_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(Files(folder).open(), np.ndarray)
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    source = Files(folder).open()
    assert isinstance(source, OpenFiles)
    assert len(source.parts) == 9
    assert (source.n_rows, source.row_shape) == (900, (8, 8))
    np.testing.assert_array_equal(source.load(), DIGITS.train[:900])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["cut off", "no image", "altered"])
def test_broken_images_are_left_out_where_it_is_asked_for(
    folder: Path, how: str, stream: bool
) -> None:
    for name in ("007.png", "450.png"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(BROKEN[how](whole))
    Image.new("L", (9, 9)).save(folder / "600.png")
    source = Files(folder, stream=stream, on_bad_file="skip")
    with pytest.warns(SkippedFilesWarning) as told:
        ae = Autoencoder(hidden_layers=(20,), **QUICK).fit(source)
    said = "".join(str(w.message) for w in told)
    for name in ("007.png", "450.png", "600.png"):
        assert f"{name} " in said
    assert ae.schema_.row_shape == (8, 8)


def test_an_image_of_another_size_is_not_left_out_in_silence(folder: Path) -> None:
    Image.new("L", (9, 9)).save(folder / "600.png")
    with pytest.warns(SkippedFilesWarning, match=r"1 of 900 files .*\n.*600\.png is 9 x 9 pixels"):
        source = Files(folder, stream=True, on_bad_file="skip").open()
    assert source.n_rows == 899


@pytest.mark.parametrize("how", ["cut off", "altered"])
def test_broken_images_are_refused_by_name_where_rows_are_streamed(folder: Path, how: str) -> None:
    broken = folder / "450.png"
    broken.write_bytes(BROKEN[how](broken.read_bytes()))
    with pytest.raises(DataError, match=r"450\.png cannot be read as an image"):
        Autoencoder(hidden_layers=(20,), **QUICK).fit(Files(folder, stream=True))


def test_an_image_that_gets_another_size_meanwhile_is_refused(folder: Path) -> None:
    source = Files(folder, stream=True).open()
    Image.new("L", (9, 8)).save(folder / "450.png")
    with pytest.raises(
        DataError, match=r"450\.png has changed .* it is 8 x 9 pixels and was 8 x 8"
    ):
        list(source.chunks())


def test_no_image_can_be_read(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(DataError, match="None of the 2 images"):
        Files(tmp_path, on_bad_file="skip").open()
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        Files(tmp_path).open()


def test_streamed_images_have_no_columns_to_drop(folder: Path) -> None:
    with pytest.raises(DataError, match="holds images, and no names of columns to drop"):
        Files(folder, drop=("x0",)).open()
