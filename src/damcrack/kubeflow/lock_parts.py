"""Parts of dvc.lock as short texts, which one task hands to the next; small data that stands for big."""

import base64
import binascii
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from damcrack.files import InputError, write_bytes

SCHEMA = "2.0"
LARGEST = 16 * 2**20  # a part is a few kilobytes; what unpacks to more is not one


def lock_part(lock: Path, stage: str) -> str:
    """The entry of one stage as base64 text."""
    entry = read_lock(lock)[stage]
    content = yaml.safe_dump({stage: entry}, sort_keys=False).encode()
    return base64.b64encode(zlib.compress(content, 9)).decode()


def read_lock(lock: Path) -> dict[str, Any]:
    """The stages of a dvc.lock, by name; none if there is no file."""
    if not lock.is_file():
        return {}
    return dict(yaml.safe_load(lock.read_text())["stages"])


def merge(parts: Iterable[str]) -> dict[str, Any]:
    """Entries of all parts by stage.

    Raises:
        InputError: a text is not a part, or two parts say different things of one stage.
    """
    stages: dict[str, Any] = {}
    for part in parts:
        for name, entry in _read(part).items():
            if stages.setdefault(name, entry) != entry:
                raise InputError(
                    f"two lock parts contradict each other about {name}; they are of different runs: "
                    "give those of one run"
                )
    return stages


def _read(part: str) -> dict[str, Any]:
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(part, validate=True), LARGEST)
        stages = yaml.safe_load(content)
    except (binascii.Error, ValueError, zlib.error, yaml.YAMLError) as error:
        raise InputError(_not_a_part(part)) from error
    whole = isinstance(stages, dict) and all(
        isinstance(one, dict) and "outs" in one for one in stages.values()
    )
    if not (unpacker.eof and whole):
        raise InputError(_not_a_part(part))
    return dict(stages)


def _not_a_part(part: str) -> str:
    return f"got {part[:20]!r}..., expected a lock part as `damcrack task` writes it; hand it on unchanged"


def write_lock(lock: Path, stages: dict[str, Any]) -> None:
    """Write a dvc.lock as DVC itself writes it, stages sorted by name."""
    content = yaml.safe_dump(
        {"schema": SCHEMA, "stages": dict(sorted(stages.items()))},
        sort_keys=False,
        allow_unicode=True,
        width=10**6,
    )
    write_bytes(lock, content.encode())
