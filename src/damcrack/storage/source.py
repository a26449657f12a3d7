"""Open folders and S3 prefixes, as sources to read or stores to add to; the only place that knows boto3."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from damcrack.data.source import Source
from damcrack.files import InputError
from damcrack.storage.store import Store, Stored

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
MOST_ATTEMPTS = 4
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


def open_source(uri: str) -> Source:
    """Open a folder or `s3://bucket/prefix`.

    S3 endpoint, region and credentials come from where boto3 looks for them: AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID and so on, or ~/.aws.

    Raises:
        InputError: no such folder, another kind of address, or boto3 is not installed.
    """
    if uri.startswith("s3://"):
        return S3Source(uri)
    if "://" in uri:
        raise InputError(f"source {uri.split('://')[0]}://, expected a folder or s3://bucket/prefix")
    return FolderSource(Path(uri))


def check_reachable(uri: str) -> None:
    """Ask once whether a folder or `s3://bucket/prefix` can be used, before long work relies on it.

    Raises:
        InputError: it does not answer, refuses us, or does not exist.
    """
    if not uri.startswith("s3://"):
        if not (Path(uri).is_absolute() and Path(uri).is_dir()):
            raise InputError(
                f"remote {uri!r}: expected s3://bucket/prefix or an existing folder's absolute path"
            )
        return
    S3Source(uri).check()


def make_bucket(uri: str) -> None:
    """Make the bucket of `s3://bucket/prefix` unless it is there.

    Raises:
        InputError: the service does not answer or refuses us.
    """
    S3Source(uri).make_bucket()


class FolderSource:
    """Regular files under a folder; symbolic links that lead out of it are left alone."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"source {root}: no such folder; create it or mend the path")
        self._root = root.resolve()

    def names(self) -> list[str]:
        """All file names, sorted, relative to the folder."""
        found = []
        for folder, _, files in os.walk(self._root, onerror=_raise_unreadable):
            found += [path for path in (Path(folder) / file for file in files) if self._holds(path)]
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def read(self, name: str) -> bytes:
        """Content of one file; FileNotFoundError if it is not (or no longer) a file inside the folder."""
        path = self._root / name
        if not self._holds(path):
            raise FileNotFoundError(name)
        try:
            return path.read_bytes()
        except PermissionError as error:
            raise _unreadable(error) from error

    def _holds(self, path: Path) -> bool:
        return path.is_file() and path.resolve().is_relative_to(self._root)


def _raise_unreadable(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> InputError:
    return InputError(f"cannot read {error.filename}: {error.strerror}; mend its permissions")


class S3Source:
    """Objects under a prefix, which counts as a folder: `s3://bucket/dam` does not reach `dam-2/`."""

    def __init__(self, uri: str) -> None:
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not self._bucket:
            raise InputError(f"source {uri}: no bucket name, expected s3://bucket/prefix")
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._client = _client(uri)

    def names(self) -> list[str]:
        """All object names, sorted, relative to the prefix; folder markers (ending in a slash) left out."""
        found = []
        with _explained(self._bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                found += [item["Key"].removeprefix(self._prefix) for item in page.get("Contents", [])]
        return sorted(name for name in found if name and not name.endswith("/"))

    def make_bucket(self) -> None:
        """Make our bucket unless it is there."""
        with _explained(self._bucket):
            there = {bucket["Name"] for bucket in self._client.list_buckets()["Buckets"]}
            if self._bucket not in there:
                self._client.create_bucket(Bucket=self._bucket)

    def check(self) -> None:
        """List at most one object; InputError if the bucket does not answer."""
        with _explained(self._bucket):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def read(self, name: str) -> bytes:
        """Content of one object; FileNotFoundError if there is none."""
        with _explained(self._bucket, name):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            return bytes(answer["Body"].read())


class S3Store(S3Source):
    """Objects under a prefix that are created once: a write needs that there is none (If-None-Match)."""

    def listed(self, prefix: str = "") -> list[Stored]:
        """All objects whose names start with `prefix`, page by page, folder markers left out."""
        found = []
        with _explained(self._bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                found += [self._stored(item) for item in page.get("Contents", [])]
        return sorted(
            (one for one in found if one.name and not one.name.endswith("/")), key=lambda one: one.name
        )

    def _stored(self, item: Any) -> Stored:
        return Stored(item["Key"].removeprefix(self._prefix), item["ETag"], item["Size"])

    def read(self, name: str, etag: str | None = None) -> bytes:
        """Content of one object; FileNotFoundError if it is gone or not the one of `etag`."""
        same = {} if etag is None else {"IfMatch": etag}
        with _explained(self._bucket, name):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, **same)
            return bytes(answer["Body"].read())

    def create(self, name: str, content: bytes) -> bool:
        """Write if there is none; a write whose answer was lost counts, by its content."""
        for attempt in range(MOST_ATTEMPTS):
            try:
                with _explained(self._bucket, name):
                    self._client.put_object(
                        Bucket=self._bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*"
                    )
                return True
            except FileExistsError:
                with suppress(FileNotFoundError):  # somebody else is just writing it
                    return self.read(name) == content
            time.sleep(0.2 * 2**attempt)
        raise InputError(f"s3://{self._bucket}: {name} is being written by others all the time; try again")

    def age_s(self, name: str) -> float | None:
        """Seconds since the object was written, both times by the service's clock."""
        try:
            with _explained(self._bucket, name):
                answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return max(0.0, float((now - answer["LastModified"]).total_seconds()))


def open_store(uri: str) -> Store:
    """Open a folder or `s3://bucket/prefix` to list, read and create objects in; raises as `open_source`."""
    if uri.startswith("s3://"):
        return S3Store(uri)
    from damcrack.storage.folder import FolderStore

    if "://" in uri:
        raise InputError(f"store {uri.split('://')[0]}://, expected a folder or s3://bucket/prefix")
    return FolderStore(Path(uri))


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
        retries={"max_attempts": MOST_ATTEMPTS, "mode": "standard"},
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
            raise _precondition(error.operation_name, name) from None
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


def _precondition(operation: str, name: str) -> OSError:
    return FileExistsError(name) if operation == "PutObject" else FileNotFoundError(name)


def _reason(code: str) -> str:
    if code in ("NoSuchBucket", "404"):
        return "no such bucket; check its name and AWS_ENDPOINT_URL"
    if code in _REFUSED:
        return f"access refused ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and their rights"
    return f"the S3 service answered {code}; try again or check the address"
