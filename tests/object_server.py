"""An S3 server on the loopback, which sends shards slowly or not at all when it is asked to; needs moto.

with object_server() as server:
    server.answers += [refuse, cut]  # to the next two requests for a shard
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "data"

Application = Callable[..., Iterable[bytes]]
Answer = Callable[[Application, dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ObjectServer:
    """A WSGI application: moto's, but for what it says to requests for shards.

    Args:
        usual: the answer to each of them, once there are no other `answers` left.
    """

    def __init__(self, usual: Answer | None = None) -> None:
        self.moto: Application = DomainDispatcherApplication(create_backend_app)
        self.usual = usual
        self.answers: list[Answer] = []
        self.sending = 0
        """How many shards are on their way."""
        self.url = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or not environ["PATH_INFO"].endswith(".tar"):
            yield from self.moto(environ, start_response)
            return
        answer = self.answers.pop(0) if self.answers else self.usual
        self.sending += 1
        try:
            yield from answer(self.moto, environ, start_response) if answer else self.moto(environ, start_response)
        finally:
            self.sending -= 1


def slowly(pause_s: float) -> Answer:
    """In ten parts, after each of which it waits."""

    def answer(moto: Application, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        content = b"".join(moto(environ, start_response))
        for part in range(10):
            yield content[len(content) * part // 10 : len(content) * (part + 1) // 10]
            time.sleep(pause_s)

    return answer


def refuse(moto: Application, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What a server in trouble says."""
    start_response("500 Internal Server Error", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return []


def cut(moto: Application, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Half of what was announced."""
    content = b"".join(moto(environ, start_response))
    return [content[: len(content) // 2]]


def garble(moto: Application, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """As many bytes as announced, of which one is another."""
    content = bytearray(b"".join(moto(environ, start_response)))
    content[len(content) // 2] ^= 1
    return [bytes(content)]


@contextmanager
def object_server(usual: Answer | None = None) -> Iterator[ObjectServer]:
    """A server with an empty bucket; this process's environment names who may read and write it."""
    application = ObjectServer(usual)
    os.environ.update(ENVIRONMENT)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for every request
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    application.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        boto3.client("s3", endpoint_url=application.url).create_bucket(Bucket=BUCKET)
        yield application
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for key in ENVIRONMENT:
            del os.environ[key]
