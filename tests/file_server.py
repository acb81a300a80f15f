"""A file server on the loopback that breaks off, refuses and lies when it is asked to.

with file_server({"a.tar": content}) as server:
    server.cut_after = 1000  # bytes of the next answer
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Files by name, in memory; attributes change the following answers."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.cut_after: int | None = None
        """Bytes after which every answer breaks off."""
        self.ranges = True
        """Whether it answers to a range with that range; otherwise with the whole file."""
        self.bytes_per_s: float | None = None
        self.requests: list[tuple[str, str, str]] = []
        """Method, name and range of each request."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        name, asked = self.path.partition("?")[0].lstrip("/"), self.headers.get("Range") or ""
        self.server.requests.append((self.command, name, asked))
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not with_body:
            return
        body = content[start:]
        if self.server.cut_after is not None:
            body = body[: self.server.cut_after]
        step = len(body) or 1 if self.server.bytes_per_s is None else max(1, int(self.server.bytes_per_s / 20))
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            if self.server.bytes_per_s is not None:
                time.sleep(0.05)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def file_server(files: Mapping[str, bytes]) -> Iterator[FileServer]:
    """A running server."""
    with FileServer(files) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
