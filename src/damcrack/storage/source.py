"""A folder or s3://bucket/prefix: list, read, and create what is not there yet; the only module that knows boto3."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from damcrack.data.names import why_unsafe
from damcrack.files import InputError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
MAX_ATTEMPTS = 4
Content = TypeVar("Content", bytes, int)
_PART = ".new-"  # prefix of files that are still being written
_REFUSED = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AccessDenied",
    "InvalidToken",
    "ExpiredToken",
    "AuthorizationHeaderMalformed",
    "401",
    "403",
}


@dataclass(frozen=True)
class Stored:
    """A listed object, its name relative to the root; another content has another `etag`."""

    name: str
    etag: str
    size_bytes: int = 0


class Folder:
    """Files under a folder; whatever a name or a link says, nothing outside it is read or written."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"source {root}: no such folder; create it or fix the path")
        self._root = root.resolve()

    def names(self) -> list[str]:
        """All file names, sorted, relative to the folder, with forward slashes."""
        return [one.name for one in self.listed()]

    def listed(self, prefix: str = "") -> list[Stored]:
        """All files whose names start with `prefix`, sorted by name."""
        found = []
        for folder, _, files in os.walk(self._root, onerror=_raise_unreadable):
            for path in (Path(folder) / file for file in files if not file.startswith(_PART)):
                name = path.relative_to(self._root).as_posix()
                if name.startswith(prefix) and self._holds(path):
                    with suppress(FileNotFoundError):  # removed since the line above
                        found.append(Stored(name, _etag(path), path.stat().st_size))
        return sorted(found, key=lambda one: one.name)

    def read(self, name: str, etag: str | None = None) -> bytes:
        """Content of one file; FileNotFoundError if it is not inside the folder or not the one of `etag`."""
        path = self._root / name
        if not self._holds(path):
            raise FileNotFoundError(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            _raise_unreadable(error)
        if etag is not None and _etag(path) != etag:
            raise FileNotFoundError(name)
        return content

    def first_bytes(self, name: str, num_bytes: int) -> bytes:
        """The beginning of one file."""
        return self.read(name)[:num_bytes]

    def save(self, name: str, path: Path) -> None:
        """Copy one file to `path`."""
        path.write_bytes(self.read(name))

    def create(self, name: str, content: bytes) -> bool:
        """Create a file unless there is one; tell whether it now holds exactly `content`.

        Raises:
            InputError: the disk is full, or the folder may not be written.
        """
        if why := why_unsafe(name):
            raise InputError(f"cannot write {name!r}: {why}")
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_PART) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                os.link(file.name, path)  # fails where there is a file already, as a rename would not
        except FileExistsError:
            return self.read(name) == content
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}; fix its permissions or disk") from error
        return True

    def _holds(self, path: Path) -> bool:
        return path.is_file() and path.resolve().is_relative_to(self._root)


def _etag(path: Path) -> str:
    known = path.stat()
    return f"{known.st_mtime_ns}-{known.st_size}-{known.st_ino}"


def _raise_unreadable(error: OSError) -> NoReturn:
    raise InputError(f"cannot read {error.filename}: {error.strerror}; fix its permissions") from error


class Bucket:
    """Objects under a prefix, which counts as a folder: `s3://bucket/dam` does not reach `dam-2/`."""

    def __init__(self, uri: str) -> None:
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not self._bucket:
            raise InputError(f"source {uri}: no bucket name, expected s3://bucket/prefix")
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._client = _client(uri)
        self._sizes: dict[str, int] = {}

    def names(self) -> list[str]:
        """All object names, sorted, relative to the prefix; folder markers (ending in a slash) left out."""
        return [one.name for one in self.listed()]

    def listed(self, prefix: str = "") -> list[Stored]:
        """All objects whose names start with `prefix`, sorted by name."""
        found = []
        with _explained(self._bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for item in (item for page in pages for item in page.get("Contents", [])):
                found.append(Stored(item["Key"].removeprefix(self._prefix), item["ETag"], item["Size"]))
        found = [one for one in found if one.name and not one.name.endswith("/")]
        self._sizes |= {one.name: one.size_bytes for one in found}
        return sorted(found, key=lambda one: one.name)

    def read(self, name: str, etag: str | None = None) -> bytes:
        """Content of one object; FileNotFoundError if it is gone or not the one of `etag`.

        A connection that breaks off, and a body shorter than the object was when it was listed, are read again.
        """
        same = {} if etag is None else {"IfMatch": etag}
        return self._again(name, lambda: self._body(name, **same))

    def first_bytes(self, name: str, num_bytes: int) -> bytes:
        """The beginning of one object."""
        if self._sizes.get(name) == 0:  # has no range
            return b""
        return self._again(name, lambda: self._body(name, Range=f"bytes=0-{num_bytes - 1}"), whole=False)

    def save(self, name: str, path: Path) -> None:
        """Stream one object to `path`."""

        def streamed() -> int:
            with path.open("wb") as file:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
                shutil.copyfileobj(answer["Body"], file, 2**20)
                return file.tell()

        self._again(name, streamed)

    def _body(self, name: str, **options: str) -> bytes:
        answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, **options)
        return bytes(answer["Body"].read())

    def _again(self, name: str, read: Callable[[], Content], whole: bool = True) -> Content:
        """Read until it is as long as listed; boto3 itself repeats requests, but not what breaks off later."""
        from botocore import exceptions

        for attempt in range(MAX_ATTEMPTS):
            last = attempt == MAX_ATTEMPTS - 1
            with _explained(self._bucket, name):
                try:
                    content = read()
                except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError):
                    raise  # after boto3's own attempts
                except (exceptions.BotoCoreError, exceptions.HTTPClientError):
                    if last:
                        raise
                else:
                    size = content if isinstance(content, int) else len(content)
                    if not whole or size >= self._sizes.get(name, 0):
                        return content
            time.sleep(0 if last else 0.2 * 2**attempt)
        raise InputError(
            f"s3://{self._bucket}: {name}: received {size} bytes, expected {self._sizes[name]} as listed; try again"
        )

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one; tell whether it now holds exactly `content`."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                with _explained(self._bucket, name):
                    self._client.put_object(
                        Bucket=self._bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*"
                    )
                return True
            except FileExistsError:
                with suppress(FileNotFoundError):  # another writer has not finished yet
                    return self.read(name) == content
            time.sleep(0.2 * 2**attempt)
        raise InputError(f"s3://{self._bucket}: {name} is being written by another process; try again")

    def check(self) -> None:
        """List at most one object; InputError if the bucket does not answer."""
        with _explained(self._bucket):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def make(self) -> None:
        """Make our bucket unless it is there."""
        with _explained(self._bucket):
            there = {bucket["Name"] for bucket in self._client.list_buckets()["Buckets"]}
            if self._bucket not in there:
                self._client.create_bucket(Bucket=self._bucket)


Store = Folder | Bucket


def open_source(uri: str) -> Store:
    """Open a folder or `s3://bucket/prefix`.

    S3 endpoint, region and credentials come from where boto3 looks for them: AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID and so on, or ~/.aws.

    Raises:
        InputError: no such folder, another kind of address, or boto3 is not installed.
    """
    if uri.startswith("s3://"):
        return Bucket(uri)
    if "://" in uri:
        raise InputError(f"source {uri.split('://')[0]}://, expected a folder or s3://bucket/prefix")
    return Folder(Path(uri))


def check_reachable(uri: str) -> None:
    """Ask once whether a folder or `s3://bucket/prefix` can be used, before long work relies on it.

    Raises:
        InputError: it does not answer, refuses us, or does not exist.
    """
    if uri.startswith("s3://"):
        Bucket(uri).check()
    elif not (Path(uri).is_absolute() and Path(uri).is_dir()):
        raise InputError(f"remote {uri!r}: expected s3://bucket/prefix or an existing folder's absolute path")


def make_bucket(uri: str) -> None:
    """Make the bucket of `s3://bucket/prefix` unless it is there.

    Raises:
        InputError: the service does not answer or refuses us.
    """
    Bucket(uri).make()


def _client(uri: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise InputError(f'source {uri} needs boto3; run pip install "damcrack[s3]"') from error
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"max_attempts": MAX_ATTEMPTS, "mode": "standard"},
        max_pool_connections=16,
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise InputError(
            f"source {uri}: the S3 settings are not usable ({type(error).__name__}); "
            "check AWS_ENDPOINT_URL, AWS_PROFILE and AWS_DEFAULT_REGION"
        ) from error


@contextmanager
def _explained(bucket: str, name: str | None = None) -> Iterator[None]:
    """Turn boto3's errors into ours, without its texts: they can hold passwords and key ids."""
    from botocore import exceptions

    what = f"s3://{bucket}" if name is None else f"s3://{bucket}: {name}"
    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if name is not None and code in ("NoSuchKey", "404"):
            raise FileNotFoundError(name) from None
        if name is not None and code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
            other = FileExistsError if error.operation_name == "PutObject" else FileNotFoundError
            raise other(name) from None
        raise InputError(f"{what}: {_reason(code)}") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise InputError(
            f"{what}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except exceptions.ParamValidationError:
        raise InputError(f"{what}: not a valid bucket or object name; check the address") from None
    except (exceptions.BotoCoreError, exceptions.HTTPClientError) as error:
        raise InputError(
            f"{what}: the S3 endpoint cannot be reached ({type(error).__name__}); "
            "check AWS_ENDPOINT_URL and the network"
        ) from None


def _reason(code: str) -> str:
    if code in ("NoSuchBucket", "404"):
        return "no such bucket; check its name and AWS_ENDPOINT_URL"
    if code in _REFUSED:
        return f"access refused ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and their rights"
    return f"the S3 service answered {code}; try again or check the address"
