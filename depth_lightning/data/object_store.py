"""Files in a folder or in S3-like object storage, by one address."""

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
"""Before each further try to copy a file, while the storage does not answer; boto3's own tries come on top."""
HINT = "Does data.root=… name what commands.pack wrote (data.endpoint_url and credentials included)?"


class StorageError(OSError):
    """Files do not come from where they are: no sample is to blame, and data.on_error=skip passes over none."""


class ObjectStore:
    """Files below a root.

    Args:
        root: a folder, or "s3://bucket/prefix", read with boto3 and the credentials that it finds (environment,
            ~/.aws, the machine's role).
        endpoint_url: of a service other than Amazon's; None for AWS_ENDPOINT_URL, or else Amazon's.

    Raises:
        SettingError: the endpoint is no address.
        ModuleNotFoundError: boto3 is not installed.
    """

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        self.root = root.rstrip("/")
        self.endpoint_url = optional("endpoint_url", endpoint_url, partial(text, what="an address, http://…"))
        self.remote = root.startswith("s3://")
        self._clients: dict[int, Any] = {}
        if self.remote:
            _imported("boto3")
            logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where it found credentials

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": {}}  # a client has connections and locks

    def read_text(self, file: str) -> str:
        """The text of a file.

        Raises:
            OSError: it is not there, or may not be read.
            ValueError: it is no text.
        """
        if not self.remote:
            path = Path(self.root).expanduser() / file
            if not path.exists():
                raise FileNotFoundError(f"No file at {path.absolute()}. {HINT}")
            return read_text(path)
        return self._do(lambda client, **place: decode_text(client.get_object(**place)["Body"].read(MAX_BYTES)), file)

    def download(self, file: str, target: BinaryIO, size: int) -> None:
        """Copy a file of `size` bytes out of the storage, which is waited for.

        Raises:
            StorageError: it is not there, may not be read, is larger, or the storage is away for long.
            OSError: `target` cannot be written.
        """
        bounded = _Bounded(target, size)
        self._do(lambda client, **place: client.download_fileobj(**place, Fileobj=bounded), file, WAITS_S)

    def upload(self, source: Path, file: str) -> None:
        """Copy a file into the storage, which is waited for.

        Raises:
            StorageError: it may not be written, or the storage is away for long.
        """

        def send(client: Any, **place: str) -> None:
            with source.open("rb") as content:
                client.upload_fileobj(content, **place)

        self._do(send, file, WAITS_S)

    def has(self, file: str) -> bool:
        """Whether there is such a file."""
        if not self.remote:
            return (Path(self.root).expanduser() / file).is_file()

        def listed(client: Any, Bucket: str, Key: str) -> bool:  # noqa: N803
            return bool(client.list_objects_v2(Bucket=Bucket, Prefix=Key, MaxKeys=1).get("Contents"))

        return self._do(listed, file)

    def _do(self, work: Callable[..., Result], file: str, waits_s: Iterable[float] = ()) -> Result:
        """What `work(client, Bucket=…, Key=…)` returns; tried again after each of `waits_s`, where that may help."""
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
            except OSError:  # of this machine's disk
                raise
            except Exception as error:  # boto3 raises anything over an answer that is none
                found = "it redirects to itself" if isinstance(error, RecursionError) else str(error)
                raise StorageError(f"{place}: {found or type(error).__name__}. {advice}") from error
            log.warning(f"{why} Trying again in {wait_s:g} s.")
            time.sleep(wait_s)
            advice = "It was tried again and again: see that the storage answers."

    def _client(self) -> Any:
        """This process's own: what was opened before a fork would be shared with the other processes."""
        if os.getpid() not in self._clients:
            client = _imported("boto3").session.Session().client("s3", endpoint_url=self.endpoint_url)
            self._clients = {os.getpid(): client}
        return self._clients[os.getpid()]


class _Bounded:
    """A file that takes no more than `size` bytes, whatever the storage sends."""

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
    """Whether it is of the network, of a server in trouble or of too many requests, and no answer that will stay."""
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
