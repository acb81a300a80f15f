"""Files in a folder or in S3-like object storage, by one address."""

import importlib
import logging
from pathlib import Path
from typing import Any


class ObjectStore:
    """Files below a root.

    Args:
        root: a folder, or "s3://bucket/prefix", read with boto3 and the credentials that it finds (environment,
            ~/.aws, the machine's role).
        endpoint_url: of a service other than Amazon's; None for AWS_ENDPOINT_URL, or else Amazon's.

    Raises:
        ModuleNotFoundError: boto3 is not installed.
    """

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        self.root, self.endpoint_url = root.rstrip("/"), endpoint_url
        self.remote = root.startswith("s3://")
        self._client: Any = None
        if self.remote:
            _boto3()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # a client has connections and locks

    def read_text(self, file: str) -> str:
        """The text of a file.

        Raises:
            OSError: it is not there, or may not be read.
        """
        if not self.remote:
            path = Path(self.root).expanduser() / file
            if not path.is_file():
                raise FileNotFoundError(f"No file at {path.absolute()}. {HINT}")
            return path.read_text(encoding="utf-8")
        bucket, key = self._place(file)
        text: str = self._do("get_object", Bucket=bucket, Key=key)["Body"].read().decode()
        return text

    def download(self, file: str, target: Path) -> None:
        """Copy a file out of the storage.

        Raises:
            OSError: it is not there, may not be read, or the disk is full.
        """
        bucket, key = self._place(file)
        self._do("download_file", bucket, key, str(target))

    def upload(self, source: Path, file: str) -> None:
        """Copy a file into the storage."""
        bucket, key = self._place(file)
        self._do("upload_file", str(source), bucket, key)

    def has(self, file: str) -> bool:
        """Whether there is such a file."""
        if not self.remote:
            return (Path(self.root).expanduser() / file).is_file()
        bucket, key = self._place(file)
        return bool(self._do("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents"))

    def _place(self, file: str) -> tuple[str, str]:
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        return bucket, f"{prefix}/{file}" if prefix else file

    def _do(self, call: str, *arguments: Any, **named: Any) -> Any:
        boto3, failures = _boto3()
        if self._client is None:
            self._client = boto3.session.Session().client("s3", endpoint_url=self.endpoint_url)
        try:
            return getattr(self._client, call)(*arguments, **named)
        except failures as error:
            place = self.root if self.endpoint_url is None else f"{self.root} at {self.endpoint_url}"
            raise OSError(f"{place}: {call} failed: {error}. {HINT}") from error


HINT = "Does data.root=… name what commands.pack wrote (data.endpoint_url and credentials included)?"


def _boto3() -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        boto3 = importlib.import_module("boto3")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("s3:// needs boto3: pip install 'depth-lightning[shards]'") from error
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where it found credentials
    exceptions = importlib.import_module("botocore.exceptions")
    failed = importlib.import_module("boto3.exceptions")
    return boto3, (exceptions.BotoCoreError, exceptions.ClientError, failed.Boto3Error)
