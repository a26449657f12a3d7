"""params.yaml to frozen configs: every value checked, every error named by section and field."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from damcrack.files import InputError
from damcrack.stage_table import STAGES

COMMON = "common"


def read_params(source: Path | str) -> dict[str, Any]:
    """Read a file, or a text, as a mapping of sections.

    Raises:
        InputError: it is missing or not YAML.
    """
    where = "the text of the values" if isinstance(source, str) else source
    try:
        params = yaml.safe_load(source if isinstance(source, str) else source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{where} is missing; name it with --params, or write one: damcrack init ."
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {error}") from error
    if not isinstance(params, dict):
        raise InputError(f"{where}: got {type(params).__name__}, expected one section per stage")
    return params


def config_class(stage: str) -> type[Any]:
    """The schema of a stage: class NAMEConfig in its room's config."""
    name = f"{stage.capitalize()}Config"
    schema: type[Any] = getattr(import_module(f"damcrack.{STAGES[stage].room}.config"), name)
    return schema


def stage_config(
    params: Mapping[str, Any], stage: str, item: str | None, changed: Mapping[str, Any] | None = None
) -> Any:
    """Validate one section, or one item of a section that has `common` values, into its frozen config.

    Values of `changed` take the place of those in the file.

    Raises:
        InputError: section, item or key unknown, or a value not allowed.
    """
    section = params.get(stage)
    if not isinstance(section, dict):
        raise InputError(f"params.yaml has no section {stage!r}; its sections are {sorted(params)}")
    where = f"{stage}.{item}" if COMMON in section else stage
    items = [name for name, _ in section_items(section)] if COMMON in section else [item]
    if item not in items:
        raise InputError(f"{stage} has no item {item!r}{_meant(str(item), items)}; its items are {items}")
    return validate(where, {**item_values(section, item), **(changed or {})}, config_class(stage))


def item_values(section: Mapping[str, Any], item: str | None) -> dict[str, Any]:
    """The values of a section, or those of one of its items over the `common` ones, without looking at a schema."""
    if COMMON not in section:
        return dict(section)
    return {**section[COMMON], **dict(section_items(section)).get(str(item), {})}


def parse_changes(settings: Iterable[str]) -> dict[str, Any]:
    """Values by name from NAME=VALUE texts; values are read as YAML.

    Raises:
        InputError: a text without "=", or a value that is not YAML.
    """
    changed = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            changed[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {setting}: {text!r} is not YAML") from error
        if not (name and equals):
            raise InputError(f"--set {setting}: expected NAME=VALUE, for example seed=3")
    return changed


def section_items(section: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All items of a section: each key beside `common` is a group of them, by name."""
    for group, items in section.items():
        if group != COMMON:
            yield from items.items()


def check_params(params: Mapping[str, Any], stages: list[str]) -> list[str]:
    """Validate a whole file; return the names of all (stage@item) configs in it.

    Raises:
        InputError: the first value that is wrong.
    """
    for name in params:
        if name not in stages:
            raise InputError(f"params.yaml: unknown section {name!r}{_meant(name, stages)}")
    names = []
    for stage in stages:
        for item in _items_of(params.get(stage)):
            stage_config(params, stage, item)
            names.append(stage if item is None else f"{stage}@{item}")
    return names


def _items_of(section: Any) -> list[str] | list[None]:
    if isinstance(section, dict) and COMMON in section:
        return [name for name, _ in section_items(section)]
    return [None]


def flatten(config: Any) -> dict[str, Any]:
    """Dotted names of all values of a config, nested ones too."""
    return flatten_values(asdict(config))


def flatten_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names of all values of nested mappings; a list is one value."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            yield prefix, value

    return dict(walk("", values)) if values else {}


def validate(where: str, values: Mapping[str, Any], schema: type[Any]) -> Any:
    """Values by name into a frozen config of that schema; what has a default may be left out, none is unknown.

    Raises:
        InputError: all values that are wrong, each by `where` and name.
    """
    known = [field.name for field in fields(schema)]
    unknown = [_unknown(where, name, known) for name in values if name not in known]
    if unknown:
        raise InputError("\n".join(unknown))
    try:
        return TypeAdapter(schema).validate_python(dict(values))
    except ValidationError as error:
        raise InputError("\n".join(_sentence(where, schema, one) for one in error.errors())) from None


def _sentence(where: str, schema: type[Any], error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "unexpected_keyword_argument":
        known = [field.name for field in fields(_schema_at(schema, path[:-1]))]
        return _unknown(".".join([where, *path[:-1]]), path[-1], known)
    if error["type"] == "missing":
        return f"{'.'.join([where, *path])} is missing; it has no default"
    if error["type"] == "value_error":
        return f"{where}.{error['ctx']['error']}"
    return f"{'.'.join([where, *path])}: got {error['input']!r}; {error['msg'][:1].lower()}{error['msg'][1:]}"


def _unknown(where: str, name: str, known: list[str]) -> str:
    return f"{where}.{name}: unknown name{_meant(name, known)}; known are {sorted(known)}"


def _schema_at(schema: type[Any], path: list[str]) -> type[Any]:
    for name in path:
        kinds = {field.name: field.type for field in fields(schema)}
        inner = kinds.get(name)
        schema = inner if isinstance(inner, type) and is_dataclass(inner) else schema
    return schema


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
