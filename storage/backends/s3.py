"""S3, and servers that speak its protocol with conditional writes (such as MinIO)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError, ClientError

from storage.backends.base import SINGLE_WRITER, ObjectInfo, below, probe
from storage.errors import InvalidRequest

_TAKEN = {"PreconditionFailed", "412"}
_BUSY = {"ConditionalRequestConflict", "409"}  # another put of it is under way, or was dropped
_NO_BUCKET = "NoSuchBucket"
_WAY_OUT = "check AWS_ENDPOINT_URL, the network and the credentials"
_LARGEST = 5 * 2**30  # bytes that one put may have
_TRIES = 5
_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds


class S3Backend:
    """Objects below ``bucket/prefix``; ``If-None-Match: *`` publishes.

    Credentials, region and endpoint come from the environment, as for every AWS client.
    """

    shared = True

    def __init__(self, location: str, *, single_writer: bool = False) -> None:
        self.bucket, _, self.prefix = location.strip("/").partition("/")
        if not self.bucket:
            raise InvalidRequest(f"s3://{location} names no bucket: write s3://bucket/prefix")
        self.url = f"s3://{location.strip('/')}{SINGLE_WRITER if single_writer else ''}"
        self.single_writer = single_writer

    @cached_property
    def _fs(self) -> Any:
        return s3fs.S3FileSystem(use_listings_cache=False)

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the connection: each process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_fs"}

    def _ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        """Call s3fs; if only people can mend what fails, name the store and what to check.

        Of networks, credentials, rights or a missing bucket the AWS libraries say neither.
        """
        try:
            return getattr(self._fs, what)(*arguments, **options)
        except (BotoCoreError, OSError, ValueError) as error:  # ValueError: not a URL
            code = _code(error.__cause__)
            if isinstance(error, FileNotFoundError | FileExistsError) and code != _NO_BUCKET:
                raise
            if code in _TAKEN | _BUSY:
                raise
            way_out = _WAY_OUT
            if code == _NO_BUCKET:
                way_out = "make the bucket, or check the address"
            raise ConnectionError(f"{self.url}: {error}: {way_out}") from error

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{below(path)}".strip("/")

    def _full(self, path: str) -> str:
        return f"{self.bucket}/{self._key(path)}"

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``start:stop`` of an object by a ranged get."""
        return bytes(self._ask("cat_file", self._full(path), start=start or None, end=stop))

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Put an object by one request: an upload in pieces that is killed stays, unlisted."""
        self._ask("pipe_file", self._full(path), bytes(data), chunksize=_LARGEST)

    def create(self, path: str, data: bytes) -> bool:
        """Put an object on the condition that its key is free."""
        if self.single_writer:
            if self.exists(path):
                return False
            self.write(path, data)
            return True
        waits = iter(_WAITS)
        while True:
            try:
                self._put_if_absent(path, data)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                code, wait = _code(error.__cause__), next(waits, None)
                if code in _TAKEN:
                    return False
                if code not in _BUSY or wait is None:
                    raise
                time.sleep(wait)

    def _put_if_absent(self, path: str, data: bytes) -> None:
        self._ask(
            "call_s3",
            "put_object",
            Bucket=self.bucket,
            Key=self._key(path),
            Body=bytes(data),
            IfNoneMatch="*",
        )

    def exists(self, path: str) -> bool:
        """Say whether an object is there."""
        return bool(self._ask("isfile", self._full(path)))

    def names(self, folder: str) -> list[str]:
        """Return the names directly below a prefix."""
        try:
            listed = self._ask("ls", self._full(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(name.rstrip("/").rsplit("/", 1)[1] for name in listed)

    def walk(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield every object below a prefix."""
        start = len(self.bucket) + 1 + (len(self.prefix) + 1 if self.prefix else 0)
        for name, entry in self._ask("find", self._full(folder), detail=True).items():
            yield ObjectInfo(name[start:], entry["size"], entry["LastModified"].timestamp())

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects in bulk; deleting what is gone is not an error on S3."""
        for batch in batched(paths, 1000):
            self._delete([{"Key": self._key(path)} for path in batch])

    def _delete(self, objects: list[dict[str, str]]) -> None:
        """Delete a batch; S3 answers that it did, with a list of those that it did not."""
        for _ in range(_TRIES):
            request = {"Bucket": self.bucket, "Delete": {"Objects": objects, "Quiet": True}}
            refused = self._ask("call_s3", "delete_objects", **request).get("Errors")
            if not refused:
                return
            objects = [{"Key": entry["Key"]} for entry in refused]
        first = refused[0]
        raise ConnectionError(
            f"{self.url}: {first['Key']} cannot be deleted: "
            f"{first.get('Message') or first.get('Code')}: {_WAY_OUT}"
        )

    def enforces_exclusive_creation(self) -> bool:
        """Put the same key twice with ``If-None-Match``: some servers ignore the condition."""
        return probe(self, f"leases/.probe-{uuid.uuid4().hex}")


def batched(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield lists of at most ``size`` paths, the most that one bulk request takes."""
    iterator = iter(paths)
    while batch := list(islice(iterator, size)):
        yield batch


def _code(cause: BaseException | None) -> str:
    """Return the server's code for an error, from the cause that s3fs keeps as it translates."""
    return str(cause.response["Error"].get("Code")) if isinstance(cause, ClientError) else ""
