"""A folder or s3://bucket/prefix: list, read, and create what is not there yet; the only module that knows boto3."""

import hashlib
import io
import os
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
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
_REFUSED = re.compile(
    "InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|InvalidToken|ExpiredToken|AuthorizationHeaderMalformed|40[13]"
)
# Of requests that arrived damaged, too fast, or while another one wrote the same object, whatever their status.
_REPEATED = re.compile(
    "SlowDown|Throttling(Exception)?|RequestTimeout|IncompleteBody|BadDigest|XAmzContentSHA256Mismatch|429"
    "|ConditionalRequestConflict"
)


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

    def links_out(self) -> list[str]:
        """Names of the links that lead out of the folder or nowhere, which are not followed; sorted."""
        entries = (Path(folder) / name for folder, *names in os.walk(self._root) for name in chain(*names))
        links = (path for path in entries if path.is_symlink())
        out = (path for path in links if not (path.exists() and path.resolve().is_relative_to(self._root)))
        return sorted(path.relative_to(self._root).as_posix() for path in out)

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

    def links_out(self) -> list[str]:
        """None: a bucket has no links."""
        return []

    def listed(self, prefix: str = "") -> list[Stored]:
        """All objects whose names start with `prefix`, sorted by name."""
        found, options = list[Stored](), {"Prefix": self._prefix + prefix}
        while True:
            page = self._page(**options)
            items = page.get("Contents", [])
            found += [
                Stored(one["Key"].removeprefix(self._prefix), one["ETag"], one["Size"]) for one in items
            ]
            if not page.get("IsTruncated"):
                break
            options["ContinuationToken"] = page["NextContinuationToken"]
        found = [one for one in found if one.name and not one.name.endswith("/")]
        self._listed |= {one.name: one for one in found}
        return sorted(found, key=lambda one: one.name)

    def check(self) -> None:
        """List at most one object; InputError if the bucket does not answer."""
        self._page(Prefix=self._prefix, MaxKeys=1)

    def _page(self, **options: Any) -> Mapping[str, Any]:
        def ask() -> Mapping[str, Any]:
            answer: Mapping[str, Any] = self._client.list_objects_v2(Bucket=self._bucket, **options)
            if "Name" not in answer:  # to boto3 an empty answer is an empty bucket
                raise NetworkError(
                    f"s3://{self._bucket}: an empty answer came, expected a listing; try again"
                )
            return answer

        return self._again(None, ask)

    def read(self, name: str, etag: str | None = None) -> bytes:
        """Content of one object; FileNotFoundError if it is gone, or not the one of `etag` or of the listing.

        Raises:
            NetworkError: it does not come whole.
        """
        file = io.BytesIO()
        self._fetch(file, name, etag)
        return file.getvalue()

    def first_bytes(self, name: str, num_bytes: int) -> bytes:
        """The beginning of one object."""
        file = io.BytesIO()
        self._fetch(file, name, stop=num_bytes)
        return file.getvalue()

    def save(self, name: str, path: Path) -> None:
        """Stream one object to `path`."""
        with path.open("w+b") as file:
            self._fetch(file, name)

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one; tell whether it now holds exactly `content`."""
        put = {**self._place(name), "Body": content, "IfNoneMatch": "*"}
        try:
            self._again(name, lambda: self._client.put_object(**put))
        except FileExistsError:
            return self.read(name) == content
        return True

    def _place(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _fetch(self, file: File, name: str, etag: str | None = None, stop: int | None = None) -> None:
        """Write an object, or its first `stop` bytes, to an empty file; what came before a break is not asked again.

        The same content is refused twice for its MD5: some services have ETags that look like one and are none.
        """
        listed, what = self._listed.get(name), f"s3://{self._bucket}: {name}"
        etag = etag or (listed.etag if listed else None)
        size = listed.size_bytes if listed and listed.etag == etag else None
        size = min(stop, size) if stop is not None and size is not None else size
        rejected = Counter[str]()

        def rest() -> None:
            # Without a size it is not known either whether two answers are of the same object.
            start = 0 if size is None else file.tell()
            options = {} if etag is None else {"IfMatch": etag}
            if start or stop is not None:
                options["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            answer = self._client.get_object(**self._place(name), **options)
            came = _plain(answer.get("ETag") or etag)
            _check(what, "ETag", came, _plain(etag) or came)
            num_bytes = _receive(what, answer, file, start, stop or (size or 2**63) + 1)
            if size is not None and num_bytes > size:
                _empty(file)
            _check(what, "number of bytes", num_bytes, num_bytes if size is None else size)
            if stop is None and _is_md5(answer, came):
                file.seek(0)
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
                if md5 != came and rejected[md5] < 2:
                    rejected[md5] += 1
                    _empty(file)
                    _check(what, "MD5", md5, came)

        if size != 0:
            self._again(name, rest, file.tell)

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
                if attempt >= MAX_ATTEMPTS or (few and attempt >= FEW_ATTEMPTS):
                    self._gave_up = True
                    raise
            time.sleep(min(MAX_WAIT_S, 0.1 * 2**attempt) * random.uniform(0.5, 1))


def _receive(what: str, answer: Mapping[str, Any], file: File, start: int, most: int) -> int:
    """Write an answer to a file from byte `start` on, and what is above `most` not at all; return the file's size.

    A service that knows no ranges sends everything.
    """
    from botocore.exceptions import FlexibleChecksumError

    found = re.match(r"bytes (\d+)-", answer.get("ContentRange", "bytes 0-"))
    begin = int(found[1]) if found else 0
    _check(what, "first byte", begin, start if "ContentRange" in answer else 0)
    file.seek(begin)
    file.truncate()
    try:
        for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
            file.write(chunk)
            if file.tell() >= most:
                return file.truncate(most)
    except FlexibleChecksumError:
        _empty(file)
        raise
    return file.tell()


def _is_md5(answer: Mapping[str, Any], etag: str) -> bool:
    not_encrypted = answer.get("ServerSideEncryption") in (None, "AES256")
    return not_encrypted and re.fullmatch("[0-9a-f]{32}", etag) is not None


def _check(what: str, kind: str, came: object, expected: object) -> None:
    if came != expected:
        raise NetworkError(f"{what}: {kind} {came} came, expected {expected} as listed; try again")


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
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    what = f"s3://{bucket}" if name is None else f"s3://{bucket}: {name}"
    answered = (boto.HTTPClientError, boto.IncompleteReadError, boto.FlexibleChecksumError, HTTPError)
    try:
        yield
    except boto.ClientError as error:
        raise _refusal(error, what, name) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError):
        raise InputError(
            f"{what}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except boto.ParamValidationError:
        raise InputError(f"{what}: not a valid bucket or object name; check the address") from None
    except (boto.BotoCoreError, HTTPError, ResponseParserError) as error:
        kind = NetworkError if isinstance(error, (*answered, ResponseParserError)) else _UnreachableError
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
    if name is not None and code in ("PreconditionFailed", "412"):
        return (FileExistsError if error.operation_name == "PutObject" else FileNotFoundError)(name)
    if _REPEATED.fullmatch(code) or (status >= 500 and status != 501):
        return NetworkError(f"{what}: the S3 service answered {code}; try again")
    if code in ("NoSuchBucket", "404"):
        return InputError(f"{what}: no such bucket; check its name and AWS_ENDPOINT_URL")
    keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and their rights"
    if _REFUSED.fullmatch(code):
        return InputError(f"{what}: access refused ({code}); check {keys}")
    return InputError(f"{what}: the S3 service answered {code}; check the address")
