"""Storage that answers nonsense: a clear error, nothing outside of the cache, and no more bytes than the index says."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from depth_lightning.data import object_store
from depth_lightning.data.object_store import ObjectStore, StorageError
from depth_lightning.data.shards import DepthShards

pytest.importorskip("boto3", reason="needs the extra shards")

SHARD = {"file": "val/000000.tar", "samples": 1, "bytes": 4096, "sha256": "0" * 64}
BODIES = {
    "html": b"<html>login please</html>",
    "binary": bytes(range(256)),
    "empty": b"",
    "deep": b"[" * 100_000,
    "utf16": "{}".encode("utf-16-le"),
}


def index(**change):
    return json.dumps({"format": "depth_lightning shards 1", "splits": {"val": [{**SHARD, **change}]}}).encode()


class _Nonsense(BaseHTTPRequestHandler):
    """What comes back is named by the bucket."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        mode = self.path.split("/")[1]
        if mode == "redirect":
            self._answer(b"", 301, Location=self.path)
        elif mode == "denied":
            self._answer(b"<Error><Code>", 403)
        elif mode == "nothttp":
            self.wfile.write(b"garbage\r\n\r\n")
            self.close_connection = True
        elif mode.startswith("outside"):
            self._answer(
                index(file={"outside1": "../../x.tar", "outside2": "/tmp/x.tar", "outside3": "val/../x.tar"}[mode])
            )
        elif self.path.endswith("index.json") and mode in ("endless", "larger", "other"):
            self._answer(index())
        elif mode == "endless" and self.command == "GET":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            except OSError:
                self.close_connection = True
        else:
            self._answer(
                {"larger": bytes(50_000), "other": bytes(4096), "endless": b""}.get(mode) or BODIES.get(mode, b"")
            )

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, content, status=200, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format, *values):
        """Nothing."""


class _Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True


@pytest.fixture
def asked():
    """The paths that the server was asked for."""
    return []


@pytest.fixture
def url(asked, monkeypatch):
    for name, value in {"ACCESS_KEY_ID": "t", "SECRET_ACCESS_KEY": "t", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(object_store, "WAITS_S", (0.01,))
    server = _Server(("127.0.0.1", 0), type("Handler", (_Nonsense,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("html", ValueError, "expected the index of 'depth_lightning shards 1'"),
        ("empty", ValueError, "expected the index of 'depth_lightning shards 1'"),
        ("deep", ValueError, "expected the index of 'depth_lightning shards 1'"),
        ("binary", StorageError, "found a NUL character in line 1"),
        ("utf16", StorageError, "found a NUL character in line 1: UTF-16 without a byte order mark"),
        ("redirect", StorageError, "it redirects to itself. Does data.root=… name what"),
        ("denied", StorageError, "403"),
        ("nothttp", StorageError, "Connection was closed"),
    ],
)
def test_an_index_that_is_nonsense(mode, kind, message, url, tmp_path):
    with pytest.raises((ValueError, OSError)) as caught:
        DepthShards(f"s3://{mode}/p", "val", cache=tmp_path / "cache", endpoint_url=url)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"s3://{mode}/p/index.json") and message in str(caught.value)


@pytest.mark.parametrize("mode", ["outside1", "outside2", "outside3"])
def test_a_shard_outside_of_the_cache_is_never_asked_for(mode, url, asked, tmp_path):
    with pytest.raises(ValueError, match=rf"^s3://{mode}/p/index\.json: expected val/<number>\.tar"):
        DepthShards(f"s3://{mode}/p", "val", cache=tmp_path / "cache", endpoint_url=url)
    assert set(asked) == {f"/{mode}/p/index.json"} and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "message"),
    [("larger", "expected 4096 bytes, found more"), ("endless", ""), ("other", "expected the content")],
)
def test_no_more_is_written_than_the_index_says(mode, message, url, tmp_path):
    data = DepthShards(f"s3://{mode}/p", "val", cache=tmp_path / "cache", endpoint_url=url)
    with pytest.raises(StorageError, match=rf"^s3://{mode}/p/val/000000\.tar.*{message}"):
        data[0]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 4096
    assert not list(tmp_path.rglob("*.tar"))


def test_a_text_in_a_folder(tmp_path):
    (tmp_path / "index.json").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"index\.json: expected text in UTF-8, found the byte 0xe9"):
        ObjectStore(str(tmp_path)).read_text("index.json")
    with pytest.raises(FileNotFoundError, match=r"No file at \S*other\.json\. Does data\.root="):
        ObjectStore(str(tmp_path)).read_text("other.json")
