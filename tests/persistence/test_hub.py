"""A model goes up to the hub and comes down the same, by the real client to a hub next door."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder
from twofold.errors import MissingExtraError, ModelFileError
from twofold.persistence import hub
from twofold.persistence.folder import DOCUMENT, WEIGHTS

X = np.random.default_rng(0).normal(size=(60, 4))
TOKEN = "hf_mostSecretOfAllTokens"
HEAD = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """So much of the hub's interface as an upload and a download of a model need."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, Any] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        self.address = f"http://127.0.0.1:{server.server_port}"
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def downloads(self) -> set[str]:
        return {path.rpartition("/")[2] for verb, path in self.requests if "/resolve/" in path}

    def answer(self, verb: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON or bytes, and headers."""
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "repos"]:
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization") or "jo", asked["name"])))
            self.repositories.setdefault(name, {})
            self.private[name] = asked.get("private", asked.get("visibility") == "private")
            return 200, {"url": f"{self.address}/{name}", "name": name, "id": name}, {}
        if parts[:2] == ["api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}, {}
        if parts[:2] == ["api", "whoami-v2"]:
            return 200, {"name": "jo", "type": "user", "auth": {}}, {}
        if parts[:2] == ["api", "models"]:
            return self._about(f"{parts[2]}/{parts[3]}", parts[4:], body)
        files = self.repositories.get("/".join(parts[:2]), {})
        if parts[2:3] == ["resolve"] and parts[-1] in files:
            content = files[parts[-1]]
            etag = hashlib.sha256(content).hexdigest()
            return 200, content, {"X-Repo-Commit": HEAD, "ETag": f'"{etag}"'}
        return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}

    def _about(self, name: str, rest: list[str], body: bytes) -> tuple[int, Any, dict[str, str]]:
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        files = self.repositories[name]
        if rest[:1] == ["preupload"]:
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            return 200, {"files": modes}, {}
        if rest[:1] == ["commit"]:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.address}/{name}/commit/{HEAD}"
            return 200, {"commitUrl": url, "commitOid": HEAD, "success": True}, {}
        if rest[:1] == ["revision"] and rest[1] not in ("main", HEAD):
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        listed = [
            {"type": "file", "path": path, "rfilename": path, "size": len(content), "oid": HEAD}
            for path, content in files.items()
        ]
        if rest[:1] == ["tree"]:
            return 200, listed, {"X-Repo-Commit": HEAD}
        return 200, {"id": name, "sha": HEAD, "siblings": listed}, {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                path = urlsplit(self.path).path
                fake.requests.append((self.command, path))
                fake.tokens.add(self.headers.get("Authorization"))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer, headers = fake.answer(self.command, path, body)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_HEAD = handle_any  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Autoencoder(n_components=2, epochs=2, random_state=0).fit(X)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="huggingface_hub is not installed"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    hub = Hub()
    yield hub
    hub.close()


def pushed(fake: Hub, model: Autoencoder, name: str = "jo/pumps", **options: Any) -> str:
    return model.push_to_hub(name, token=TOKEN, endpoint=fake.address, **options)


def pulled(fake: Hub, cache: Path, name: str = "jo/pumps", **options: Any) -> Autoencoder:
    return Autoencoder.from_pretrained(
        name, cache_dir=cache, token=TOKEN, endpoint=fake.address, **options
    )


def test_what_comes_down_is_what_went_up(fake: Hub, model: Autoencoder, tmp_path: Path) -> None:
    pushed(fake, model)
    np.testing.assert_array_equal(pulled(fake, tmp_path).transform(X), model.transform(X))


def test_the_model_and_its_page_go_up_and_nothing_else(fake: Hub, model: Autoencoder) -> None:
    url = pushed(fake, model)
    files = fake.repositories["jo/pumps"]
    assert set(files) == {WEIGHTS, DOCUMENT, "README.md"}
    assert files["README.md"].decode() == hub.card(model, "jo/pumps")
    assert url == f"{fake.address}/jo/pumps/commit/{HEAD}"


@pytest.mark.parametrize(("asked", "sent"), [({}, True), ({"private": False}, False)])
def test_a_repository_is_private_unless_that_is_asked_otherwise(
    asked: dict[str, Any], sent: bool, fake: Hub, model: Autoencoder
) -> None:
    pushed(fake, model, **asked)
    assert fake.private["jo/pumps"] is sent


def test_only_the_two_files_come_down(fake: Hub, model: Autoencoder, tmp_path: Path) -> None:
    pushed(fake, model)
    fake.repositories["jo/pumps"]["evil.py"] = b"raise SystemExit"
    pulled(fake, tmp_path)
    assert fake.downloads == {WEIGHTS, DOCUMENT}


def test_a_commit_can_be_asked_for(fake: Hub, model: Autoencoder, tmp_path: Path) -> None:
    pushed(fake, model)
    ae = pulled(fake, tmp_path, revision=HEAD)
    np.testing.assert_array_equal(ae.transform(X), model.transform(X))


def test_an_altered_file_is_refused(fake: Hub, model: Autoencoder, tmp_path: Path) -> None:
    pushed(fake, model)
    files = fake.repositories["jo/pumps"]
    files[WEIGHTS] = files[WEIGHTS][:-1] + b"?"
    with pytest.raises(ModelFileError, match="cut off or altered"):
        pulled(fake, tmp_path)


def test_a_repository_without_a_model_is_refused(
    fake: Hub, model: Autoencoder, tmp_path: Path
) -> None:
    pushed(fake, model)
    del fake.repositories["jo/pumps"][WEIGHTS]
    with pytest.raises(ModelFileError):
        pulled(fake, tmp_path)


@pytest.mark.parametrize(("name", "options"), [("jo/nobody", {}), ("jo/pumps", {"revision": "v9"})])
def test_what_is_not_there_is_told(
    name: str, options: dict[str, Any], fake: Hub, model: Autoencoder, tmp_path: Path
) -> None:
    pushed(fake, model)
    with pytest.raises(ModelFileError, match=f"{name} could not be read from the hub: ") as told:
        pulled(fake, tmp_path, name, **options)
    assert "\n" not in str(told.value)


def test_a_hub_that_does_not_answer_is_told(fake: Hub, model: Autoencoder, tmp_path: Path) -> None:
    fake.close()
    with pytest.raises(ModelFileError, match="jo/pumps could not be read from the hub"):
        pulled(fake, tmp_path)
    with pytest.raises(ModelFileError, match="could not be uploaded to jo/pumps"):
        pushed(fake, model)


def test_the_token_is_sent_and_never_told(
    fake: Hub, model: Autoencoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        pushed(fake, model)
        pulled(fake, tmp_path)
        with pytest.raises(ModelFileError) as told:
            pulled(fake, tmp_path, "jo/nobody")
    assert fake.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in caplog.text
    assert TOKEN not in str(told.value)
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in stored)
    assert not any(TOKEN.encode() in c for c in fake.repositories["jo/pumps"].values())


def test_an_error_that_holds_the_token_is_told_without_it(
    model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def fail(*args: object, **options: object) -> None:
        raise OSError(f"401 for url with {TOKEN}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        ModelFileError, match="401 for url with ..., |401 for url with ...."
    ) as told:
        Autoencoder.from_pretrained("jo/pumps", token=TOKEN)
    assert TOKEN not in str(told.value)
    assert told.value.__cause__ is None


# Without a hub


def test_a_folder_needs_no_hub(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model.save(tmp_path / "model")
    ae = Autoencoder.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(ae.transform(X), model.transform(X))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c", "jo/pumps?x", ""])
def test_what_can_be_no_repository_is_not_asked_for(name: str) -> None:
    with pytest.raises(ModelFileError, match=r"Expected a folder that exists or a repository"):
        Autoencoder.from_pretrained(name)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_missing_package_is_named(
    verb: str, model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"Install 'twofold\[hub\]'"):
        model.push_to_hub("jo/pumps") if verb == "push" else Autoencoder.from_pretrained("jo/pumps")


# The page


def test_the_page_says_what_the_model_is(model: Autoencoder) -> None:
    page = hub.card(model, "jo/pumps")
    for words in (
        "library_name: twofold",
        "# pumps",
        "4 columns: 4 real (gaussian)",
        "x0      real  gaussian",
        "n_components  2  default none",
        "variance kept by PCA",
        'ae = Autoencoder.from_pretrained("jo/pumps")',
    ):
        assert words in page


def test_no_name_breaks_out_of_its_block(tmp_path: Path) -> None:
    frame = pd.DataFrame(X[:, :2], columns=["```\n# mine", "x"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        page = hub.card(Autoencoder(n_components=1, epochs=1).fit(frame), "jo/pumps")
    blocks = page.split("## Columns")[1].split("## Layers")[0]
    assert blocks.count("````") == 2


def test_nothing_is_left_behind(
    fake: Hub, model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.tempfile, "tempdir", str(tmp_path))
    pushed(fake, model)
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)
