"""JSON files that hold a long list, written item by item: memory does not grow with their number."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_json_list(path: Path, head: str, items: Iterable[Any], tail: str) -> None:
    """Write `head`, the items with commas between, `tail`; `path` is there once all of it is."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(head)
        for number, item in enumerate(items):
            file.write(("," if number else "") + "\n" + json.dumps(item, allow_nan=False))
        file.write("\n" + tail + "\n")
    temporary.replace(path)
