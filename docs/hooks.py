"""Hooks of MkDocs: the reference of commands and values is written from the parser and from the schemas."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

import click
from pydantic import TypeAdapter

from damcrack.cli.main import cli
from damcrack.params import config_class
from damcrack.stage_table import STAGES

HELP: dict[str, Any] = {"resilient_parsing": True, "terminal_width": 80}
HEAD = "| value | type | range | default | unit |\n| --- | --- | --- | --- | --- |\n"
# A name ends in its unit; longer endings first.
UNITS = {
    "mm_per_px": "mm/px",
    "_px": "px",
    "size_hw": "px",
    "_deg": "degrees",
    "_ms": "ms",
    "_s": "s",
    "_m": "m",
    "_mb": "MB",
    "_megapixels": "megapixels",
    "_bits": "bits",
    "epochs": "epochs",
    "_steps": "steps",
}
BOUNDS = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
BOUNDS |= {"multipleOf": "multiple of ", "minItems": "items ≥ "}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the markers of the reference pages."""
    if "<!-- values -->" in markdown:
        return markdown.replace("<!-- values -->", "\n".join(map(section, STAGES)))
    if "<!-- commands -->" in markdown:
        return markdown.replace(
            "<!-- commands -->", "\n".join(commands(cli.make_context("damcrack", [], **HELP)))
        )
    return markdown


def commands(context: click.Context, level: int = 2) -> Iterator[str]:
    """Markdown of a command's help, then of its commands."""
    yield f"{'#' * level} {context.command_path}\n\n``` {{ .text .help }}\n{context.get_help()}\n```\n"
    for name, inner in sorted(getattr(context.command, "commands", {}).items()):
        yield from commands(inner.make_context(name, [], context, **HELP), min(level + 1, 3))


def section(stage: str) -> str:
    """Markdown of one stage: what its schema says, then a table with one row a value, nested ones with dots."""
    schema = config_class(stage)
    parts = dict.fromkeys([*reversed(inspect.getmro(schema)[:-1]), *nested(schema)])
    words = "\n\n".join(inspect.getdoc(part) or "" for part in parts)
    return f"\n## {stage}\n\n{words}\n\n{HEAD}{''.join(rows(TypeAdapter(schema).json_schema()))}"


def nested(schema: type[Any]) -> Iterator[type[Any]]:
    """Dataclasses that the values of a schema are made of."""
    for hint in get_type_hints(schema).values():
        for kind in (hint, *get_args(hint)):
            if is_dataclass(kind):
                yield kind  # type: ignore[misc]


def rows(schema: dict[str, Any]) -> Iterator[str]:
    """Table rows of a JSON schema."""
    for name, value in flat(schema, schema.get("$defs", {})):
        kinds = [one for one in value.get("anyOf", [value]) if one.get("type") != "null"]
        default = "required" if "default" not in value else f"`{json.dumps(value['default'])}`"
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
        yield f"| `{name}` | {kind_of(kinds[0])} | {range_of(kinds[0])} | {default} | {unit} |\n"


def flat(
    schema: dict[str, Any], defined: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Values by dotted name; a value that is a schema of its own stands for its values."""
    for name, value in schema["properties"].items():
        inner = next((one["$ref"] for one in value.get("anyOf", [value]) if "$ref" in one), None)
        if inner:
            yield from flat(defined[inner.split("/")[-1]], defined, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def kind_of(value: dict[str, Any]) -> str:
    """One word for the type."""
    if "enum" in value:
        return "one of"
    if value["type"] == "array":
        inner = value.get("items") or value["prefixItems"][0]
        return f"list of {kind_of(inner)}"
    return {"object": "mapping", "string": "text"}.get(value["type"], value["type"])


def range_of(value: dict[str, Any]) -> str:
    """Allowed values, or bounds; of a list also those of its items."""
    inner = value.get("items") or (value.get("prefixItems") or [{}])[0] or value.get("additionalProperties")
    allowed = [f"`{one}`" for one in value.get("enum", [])]
    bounds = [f"{sign}{value[key]:g}" for key, sign in BOUNDS.items() if key in value]
    if "maxItems" in value:  # a tuple
        bounds = [f"{value['maxItems']} items"]
    of_items = [range_of(inner)] if isinstance(inner, dict) and inner else []
    return ", ".join(filter(None, [*allowed, *bounds, *of_items]))
