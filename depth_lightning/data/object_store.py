"""Files in a folder or in S3-compatible object storage, behind one address."""

import importlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from depth_lightning.data.reading import MAX_BYTES, decode_text, read_text
from depth_lightning.settings import optional, text

log = logging.getLogger(__name__)
Result = TypeVar("Result")

WAITS_S = (1, 2, 4, 8, 16, 32, 60)
"""Waits before each retry of a copy while the storage does not respond; boto3's own retries come on top."""
HINT = "Does data.root=… name what commands.pack wrote (data.endpoint_url and credentials included)?"


class StorageError(OSError):
    """The storage fails to deliver files. No sample is to blame, and data.on_error=skip skips none."""


class ObjectStore:
    """Files below a root.

    Args:
        root: a folder, or "s3://bucket/prefix", read with boto3 and the credentials that it finds (environment,
            ~/.aws, the machine's role).
        endpoint_url: endpoint of a service other than Amazon's; None for AWS_ENDPOINT_URL, or else Amazon's.

    Raises:
        SettingError: the endpoint is not an address.
        ModuleNotFoundError: boto3 is not installed.
    """

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        self.root = root.rstrip("/")
        self.endpoint_url = optional("endpoint_url", endpoint_url, partial(text, what="an address, http://…"))
        self.remote = root.startswith("s3://")
        self._clients: dict[int, Any] = {}
        if self.remote:
            _imported("boto3")
            logging.getLogger("botocore").setLevel(logging.WARNING)  # at INFO it logs where it found credentials

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": {}}  # a client holds connections and locks

    def read_text(self, file: str) -> str:
        """The text of a file.

        Raises:
            OSError: it does not exist or may not be read.
            ValueError: it is not text.
        """
        if not self.remote:
            path = Path(self.root).expanduser() / file
            if not path.exists():
                raise FileNotFoundError(f"No file at {path.absolute()}. {HINT}")
            return read_text(path)
        return self._do(lambda client, **place: decode_text(client.get_object(**place)["Body"].read(MAX_BYTES)), file)

    def download(self, file: str, target: BinaryIO, size: int) -> None:
        """Copy a file of `size` bytes out of the storage, retrying while the storage does not respond.

        Raises:
            StorageError: it does not exist, may not be read, is larger, or the storage is unavailable for too long.
            OSError: `target` cannot be written.
        """
        bounded = _Bounded(target, size)
        self._do(lambda client, **place: client.download_fileobj(**place, Fileobj=bounded), file, WAITS_S)

    def upload(self, source: Path, file: str) -> None:
        """Copy a file into the storage, retrying while the storage does not respond.

        Raises:
            StorageError: it may not be written, or the storage is unavailable for too long.
        """

        def send(client: Any, **place: str) -> None:
            with source.open("rb") as content:
                client.upload_fileobj(content, **place)

        self._do(send, file, WAITS_S)

    def has(self, file: str) -> bool:
        """Whether the file exists."""
        if not self.remote:
            return (Path(self.root).expanduser() / file).is_file()

        def listed(client: Any, Bucket: str, Key: str) -> bool:  # noqa: N803
            return bool(client.list_objects_v2(Bucket=Bucket, Prefix=Key, MaxKeys=1).get("Contents"))

        return self._do(listed, file)

    def _do(self, work: Callable[..., Result], file: str, waits_s: Iterable[float] = ()) -> Result:
        """Return `work(client, Bucket=…, Key=…)`; retry after each of `waits_s` if that may help."""
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        place = f"{self.root}/{file}" + (f" at {self.endpoint_url}" if self.endpoint_url else "")
        waits, advice = iter(waits_s), HINT
        while True:
            try:
                return work(self._client(), Bucket=bucket, Key=f"{prefix}/{file}" if prefix else file)
            except _failures() as error:
                why = f"{place}: {getattr(error, 'last_exception', error)}.".replace("..", ".")
                wait_s = next(waits, None) if _may_pass(error) else None
                if wait_s is None:
                    raise StorageError(f"{why} {advice}") from error
            except OSError:  # from this machine's disk
                raise
            except Exception as error:  # boto3 may raise anything on a malformed response
                reason = "it redirects to itself" if isinstance(error, RecursionError) else str(error)
                raise StorageError(f"{place}: {reason or type(error).__name__}. {advice}") from error
            log.warning(f"{why} Trying again in {wait_s:g} s.")
            time.sleep(wait_s)
            advice = "All retries failed: check that the storage responds."

    def _client(self) -> Any:
        """This process's own client: one opened before a fork would share its connections between processes."""
        if os.getpid() not in self._clients:
            client = _imported("boto3").session.Session().client("s3", endpoint_url=self.endpoint_url)
            self._clients = {os.getpid(): client}
        return self._clients[os.getpid()]


class _Bounded:
    """A file that accepts at most `size` bytes, whatever the storage sends."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def write(self, content: bytes) -> int:
        if self.tell() + len(content) > self.size:
            raise ValueError(f"expected {self.size} bytes, found more")
        return self.file.write(content)


def _failures() -> tuple[type[Exception], ...]:
    botocore, transfer = _imported("botocore.exceptions"), _imported("s3transfer.exceptions")
    return botocore.BotoCoreError, botocore.ClientError, transfer.RetriesExceededError


def _may_pass(error: Any) -> bool:
    """Whether the error may be temporary: network trouble, a server error or too many requests."""
    botocore, transfer = _imported("botocore.exceptions"), _imported("s3transfer.exceptions")
    if isinstance(error, botocore.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return bool(status == 429 or status >= 500)
    damaged = botocore.IncompleteReadError, botocore.FlexibleChecksumError, transfer.RetriesExceededError
    return isinstance(error, (botocore.ConnectionError, botocore.HTTPClientError, *damaged))


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("s3:// needs boto3: pip install 'depth-lightning[shards]'") from error
