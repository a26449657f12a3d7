"""A folder or s3://bucket/prefix: list, read, and create what is not there yet; the only module that knows boto3."""

import hashlib
import io
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from damcrack.data.names import why_unsafe
from damcrack.files import InputError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
MAX_ATTEMPTS = 12  # where three of ten requests fail, two of a million fail so often in a row
FEW_ATTEMPTS = 3  # where nothing answers, and after another request has failed so often
MAX_WAIT_S = 2.0
CHUNK_BYTES = 2**20
Result = TypeVar("Result")
File = io.BytesIO | io.BufferedRandom
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
# Of requests that arrived damaged or too fast, whatever their status.
_REPEATED = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "429",
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


class NetworkError(InputError):
    """The network or the service failed, again and again; what was asked for may well be whole."""


class _UnreachableError(NetworkError):
    """Nothing that speaks S3 answers."""


class Bucket:
    """Objects under a prefix, which counts as a folder: `s3://bucket/dam` does not reach `dam-2/`.

    A request is repeated while the network or the service fails. An object is read as it was listed: size, ETag and,
    where the ETag is one, MD5 are compared, and what is missing or wrong is fetched again.
    """

    def __init__(self, uri: str) -> None:
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not self._bucket:
            raise InputError(f"source {uri}: no bucket name, expected s3://bucket/prefix")
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._client = _client(uri)
        self._listed: dict[str, Stored] = {}
        self._gave_up = False

    def names(self) -> list[str]:
        """All object names, sorted, relative to the prefix; folder markers (ending in a slash) left out."""
        return [one.name for one in self.listed()]

    def listed(self, prefix: str = "") -> list[Stored]:
        """All objects whose names start with `prefix`, sorted by name."""
        items = (item for page in self._pages(prefix) for item in page.get("Contents", []))
        found = [Stored(item["Key"].removeprefix(self._prefix), item["ETag"], item["Size"]) for item in items]
        found = [one for one in found if one.name and not one.name.endswith("/")]
        self._listed |= {one.name: one for one in found}
        return sorted(found, key=lambda one: one.name)

    def _pages(self, prefix: str, **options: Any) -> Iterator[Mapping[str, Any]]:
        def page() -> Mapping[str, Any]:
            answer: Mapping[str, Any] = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix + prefix, **options
            )
            if "Name" not in answer:  # to boto3 an empty answer is an empty bucket
                raise NetworkError(
                    f"s3://{self._bucket}: an empty answer came, expected a listing; try again"
                )
            return answer

        while True:
            answer = self._again(None, page)
            yield answer
            if not answer.get("IsTruncated"):
                return
            options["ContinuationToken"] = answer["NextContinuationToken"]

    def read(self, name: str, etag: str | None = None) -> bytes:
        """Content of one object; FileNotFoundError if it is gone, or not the one of `etag` or of the listing.

        Raises:
            NetworkError: it does not come whole.
        """
        file = io.BytesIO()
        self._fetch(file, _Wanted(self._bucket, name, self._listed.get(name), etag))
        return file.getvalue()

    def first_bytes(self, name: str, num_bytes: int) -> bytes:
        """The beginning of one object."""
        file = io.BytesIO()
        self._fetch(file, _Wanted(self._bucket, name, self._listed.get(name), stop=num_bytes))
        return file.getvalue()

    def save(self, name: str, path: Path) -> None:
        """Stream one object to `path`."""
        with path.open("w+b") as file:
            self._fetch(file, _Wanted(self._bucket, name, self._listed.get(name)))

    def _fetch(self, file: File, wanted: "_Wanted") -> None:
        """Write what is wanted to an empty file; what came before a break is not fetched again."""

        def rest() -> None:
            if wanted.size_bytes is None:  # nor is it known whether two answers are of the same object
                _empty(file)
            if wanted.size_bytes is None or file.tell() < wanted.size_bytes:
                place = {"Bucket": self._bucket, "Key": self._prefix + wanted.name}
                wanted.append(self._client.get_object(**place, **wanted.options(file.tell())), file)
            wanted.check(file)

        self._again(wanted.name, rest, file.tell)

    def _again(
        self, name: str | None, call: Callable[[], Result], progress: Callable[[], int] = lambda: 0
    ) -> Result:
        """The result of `call`, repeated while the network or the service fails.

        Raises:
            NetworkError: many attempts in a row brought no `progress`; few where nothing answers.
        """
        attempt = furthest = 0
        while True:
            try:
                with _explained(self._bucket, name):
                    result = call()
                self._gave_up = False
                return result
            except NetworkError as error:
                attempt, furthest = (attempt + 1, furthest) if progress() <= furthest else (1, progress())
                few = self._gave_up or isinstance(error, _UnreachableError)
                if attempt >= (min(FEW_ATTEMPTS, MAX_ATTEMPTS) if few else MAX_ATTEMPTS):
                    self._gave_up = True
                    raise
            time.sleep(min(MAX_WAIT_S, 0.1 * 2**attempt) * random.uniform(0.5, 1))

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one; tell whether it now holds exactly `content`."""
        put: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + name, "Body": content}
        for attempt in range(MAX_ATTEMPTS):
            try:
                self._again(name, lambda: self._client.put_object(**put, IfNoneMatch="*"))
                return True
            except FileExistsError:
                with suppress(FileNotFoundError):  # another writer has not finished yet
                    return self.read(name) == content
            time.sleep(min(MAX_WAIT_S, 0.2 * 2**attempt))
        raise InputError(f"s3://{self._bucket}: {name} is being written by another process; try again")

    def check(self) -> None:
        """List at most one object; InputError if the bucket does not answer."""
        next(self._pages("", MaxKeys=1))

    def make(self) -> None:
        """Make our bucket unless it is there."""
        buckets = self._again(None, self._client.list_buckets)["Buckets"]
        if self._bucket not in {bucket["Name"] for bucket in buckets}:
            self._again(None, lambda: self._client.create_bucket(Bucket=self._bucket))


class _Wanted:
    """An object, or its first `stop` bytes, as it was listed, or else as the first answer says that it is."""

    def __init__(
        self, bucket: str, name: str, listed: Stored | None, etag: str | None = None, stop: int | None = None
    ) -> None:
        self.name, self._place, self._stop = name, f"s3://{bucket}: {name}", stop
        self._etag = etag or (listed.etag if listed else None)
        self.size_bytes = listed.size_bytes if listed and listed.etag == self._etag else None
        if stop is not None and self.size_bytes is not None:
            self.size_bytes = min(stop, self.size_bytes)
        self._md5: str | None = None
        self._rejected: list[str] = []

    def options(self, start: int) -> dict[str, str]:
        """For a request of what is missing from byte `start` on."""
        options = {} if self._etag is None else {"IfMatch": self._etag}
        if start or self._stop is not None:
            options["Range"] = f"bytes={start}-{'' if self._stop is None else self._stop - 1}"
        return options

    def append(self, answer: Mapping[str, Any], file: File) -> None:
        """Add the content of an answer to what is there; a service that knows no ranges sends everything."""
        from botocore.exceptions import FlexibleChecksumError

        self._check_answer(answer, file.tell())
        if "ContentRange" not in answer:
            _empty(file)
        try:
            for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                file.write(chunk)
                if file.tell() >= (self._stop or (self.size_bytes or 2**63) + 1):
                    break
        except FlexibleChecksumError:
            _empty(file)
            raise

    def _check_answer(self, answer: Mapping[str, Any], start: int) -> None:
        etag = answer.get("ETag") or self._etag
        if _plain(etag) != _plain(self._etag or etag):
            raise NetworkError(f"{self._place}: ETag {etag} came, expected {self._etag} as listed; try again")
        place = answer.get("ContentRange", f"bytes {start}-")
        if not place.startswith(f"bytes {start}-"):
            raise NetworkError(f"{self._place}: {place} came, expected those from {start} on; try again")
        looks_so = re.fullmatch("[0-9a-f]{32}", _plain(etag)) and self._stop is None
        not_encrypted = answer.get("ServerSideEncryption") in (None, "AES256")
        self._md5 = _plain(etag) if looks_so and not_encrypted else None

    def check(self, file: File) -> None:
        """Refuse a content of another size, or whose MD5 is not its ETag; what is too short stays, to be completed.

        The same content is refused twice: some services have ETags that look like an MD5 and are none.
        """
        num_bytes = file.tell()
        if self._stop is not None and num_bytes > self._stop:
            num_bytes = file.truncate(self._stop)
        if self.size_bytes is not None and num_bytes != self.size_bytes:
            if num_bytes > self.size_bytes:
                _empty(file)
            raise NetworkError(
                f"{self._place}: {num_bytes} bytes came, expected {self.size_bytes} as listed; try again"
            )
        if self._md5:
            file.seek(0)
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if md5 != self._md5 and self._rejected.count(md5) < 2:
                self._rejected.append(md5)
                _empty(file)
                raise NetworkError(
                    f"{self._place}: MD5 {md5} came, expected {self._md5} as listed; try again"
                )


def _plain(etag: str | None) -> str:
    return (etag or "").removeprefix("W/").strip('"')


def _empty(file: File) -> None:
    file.seek(0)
    file.truncate()


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
        retries={"total_max_attempts": 1, "mode": "standard"},  # `Bucket` repeats what failed
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
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    what = f"s3://{bucket}" if name is None else f"s3://{bucket}: {name}"
    broken = (exceptions.HTTPClientError, exceptions.IncompleteReadError, exceptions.FlexibleChecksumError)
    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error, what, name) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise InputError(
            f"{what}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except exceptions.ParamValidationError:
        raise InputError(f"{what}: not a valid bucket or object name; check the address") from None
    except (exceptions.BotoCoreError, HTTPError, ResponseParserError) as error:
        kind = (
            NetworkError
            if isinstance(error, (*broken, HTTPError, ResponseParserError))
            else _UnreachableError
        )
        raise kind(
            f"{what}: the S3 endpoint cannot be reached ({type(error).__name__}); "
            "check AWS_ENDPOINT_URL and the network"
        ) from None


def _refusal(error: Any, what: str, name: str | None) -> Exception:
    """What a ClientError of boto3 means."""
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if name is not None and code in ("NoSuchKey", "404"):
        return FileNotFoundError(name)
    if name is not None and code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
        return (FileExistsError if error.operation_name == "PutObject" else FileNotFoundError)(name)
    passes = code in _REPEATED or (status >= 500 and status != 501)
    return (NetworkError if passes else InputError)(f"{what}: {_reason(code)}")


def _reason(code: str) -> str:
    if code in ("NoSuchBucket", "404"):
        return "no such bucket; check its name and AWS_ENDPOINT_URL"
    if code in _REFUSED:
        return f"access refused ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and their rights"
    return f"the S3 service answered {code}; try again or check the address"
