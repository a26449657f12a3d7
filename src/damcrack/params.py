"""params.yaml to frozen configs: every value checked, every error named by section and field."""

import difflib
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from damcrack.files import InputError
from damcrack.stage_table import STAGES

COMMON = "common"
ITEM = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # a word of a command and a folder's name
TAG = "tag:yaml.org,2002:"


class Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 and DVC read them, where YAML 1.1 has 010 = 8, 1:30 = 90, on = true and dates.

    Names are text, and none is there twice.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the base class's name for them

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """The values of a mapping by name."""
        names = Counter(key.value for key, _ in node.value if key.tag != TAG + "merge")
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} is there twice", node.start_mark
            )
        self.flatten_mapping(node)
        for key, _ in node.value:
            key.tag = TAG + "str"
        return super().construct_mapping(node, deep)


for kind, pattern in {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": "<<",
}.items():
    Loader.add_implicit_resolver(TAG + kind, re.compile(f"^(?:{pattern})$"), None)
Loader.add_constructor(
    TAG + "int", lambda _, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)
)


def read_params(source: Path | str) -> dict[str, Any]:
    """Read a file, or a text, as a mapping of sections.

    Raises:
        InputError: it is missing or not YAML.
    """
    where = "the text of the values" if isinstance(source, str) else source
    try:
        params = load_yaml(source if isinstance(source, str) else source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{where} is missing; name the file as it is called, or write one: damcrack init ."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{where} is not YAML in UTF-8: {error}") from error
    if not isinstance(params, dict):
        raise InputError(f"{where}: got {type(params).__name__}, expected names with values")
    return params


def load_yaml(text: str) -> Any:
    """The value of a YAML text."""
    return yaml.load(text, Loader)


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
    if stage not in params:
        raise InputError(f"params.yaml has no section {stage!r}; its sections are {sorted(params)}")
    section = _mapping(stage, params[stage])
    where = f"{stage}.{item}" if COMMON in section else stage
    items = [name for name, _ in section_items(section)] if COMMON in section else [str(item)]
    if str(item) not in items:
        raise InputError(f"{stage} has no item {item!r}{_meant(str(item), items)}; its items are {items}")
    if (num := items.count(str(item))) > 1:
        raise InputError(f"{stage} has the item {item!r} in {num} groups; rename one of them")
    return validate(where, {**item_values(section, item), **(changed or {})}, config_class(stage))


def item_values(section: Mapping[str, Any], item: str | None) -> dict[str, Any]:
    """The values of a section, or those of one of its items over the `common` ones, without looking at a schema."""
    if COMMON not in section:
        return dict(section)
    return {**_mapping(COMMON, section[COMMON]), **dict(section_items(section)).get(str(item), {})}


def parse_changes(settings: Iterable[str]) -> dict[str, Any]:
    """Values by name from NAME=VALUE texts; values are read as YAML.

    Raises:
        InputError: a text without "=", or a value that is not YAML.
    """
    changed = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            changed[name] = load_yaml(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {setting}: {text!r} is not YAML") from error
        if not (name and equals):
            raise InputError(f"--set {setting}: expected NAME=VALUE, for example seed=3")
    return changed


def section_items(section: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All items of a section: each key beside `common` is a group of them, by name."""
    for group, items in section.items():
        if group != COMMON:
            for name, values in _mapping(group, items).items():
                yield name, _mapping(name, values)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping of the file; nothing after a name is an empty one."""
    if not isinstance(value, dict | None):
        raise InputError(f"{name} in params.yaml: got {value!r}, expected names with values")
    return value or {}


def check_params(params: Mapping[str, Any], stages: list[str]) -> dict[str, Any]:
    """Validate a whole file; return all configs in it by stage, or stage@item.

    A stage may have no section: which ones a graph takes, the graph knows (`damcrack.kubeflow.graph.derive`).

    Raises:
        InputError: the first value that is wrong, or that the values of another stage rule out.
    """
    for name in params:
        if name not in stages:
            raise InputError(f"params.yaml: unknown section {name!r}{_meant(name, stages)}")
    configs: dict[str, Any] = {}
    for stage in filter(params.__contains__, stages):
        section, items = _mapping(stage, params[stage]), list[str | None]([None])
        if COMMON in section:
            items = [name for name, _ in section_items(section)]
        for item in items:
            if item is not None and not re.fullmatch(ITEM, str(item)):
                raise InputError(
                    f"{stage}: item {item!r}; expected letters, digits, . _ - as its folder's name"
                )
            configs[stage if item is None else f"{stage}@{item}"] = stage_config(params, stage, item)
    _check_together(configs)
    return configs


def _check_together(configs: Mapping[str, Any]) -> None:
    """Refuse values that a later stage would refuse, after hours of training."""
    if (tile := configs.get("tile")) is None:
        return
    for name, config in configs.items():
        if not name.startswith("finetune@"):
            continue
        if tile.tile_px % config.image_px or (config.pixel_channels and config.image_px != tile.tile_px):
            expected = "that size, for its pixel head" if config.pixel_channels else "a divisor"
            raise InputError(
                f"{name}: image_px: {config.image_px}; tiles have tile.tile_px: {tile.tile_px}, expected {expected}"
            )
        if config.unlabelled_share and not tile.unlabelled_tiles:
            raise InputError(
                f"{name}: unlabelled_share: {config.unlabelled_share}; there are tiles without a label only where "
                "tile.unlabelled_tiles says how many"
            )


def flatten(config: Any) -> dict[str, Any]:
    """Dotted names of all values of a config, nested ones too."""
    return flatten_values(asdict(config))


def flatten_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names of all values of nested mappings; a list is one value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= flatten_values(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def validate(where: str, values: Mapping[str, Any], schema: type[Any]) -> Any:
    """Values by name into a frozen config of that schema; what has a default may be left out, none is unknown.

    Raises:
        InputError: all values that are wrong, each by `where` and name.
    """
    try:
        return TypeAdapter(schema).validate_python(dict(values))
    except ValidationError as error:
        raise InputError("\n".join(_sentence(where, schema, one) for one in error.errors())) from None


def _sentence(where: str, schema: type[Any], error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    named = ".".join([where, *path])
    match error["type"]:
        case "unexpected_keyword_argument":
            for name in path[:-1]:
                kind = {field.name: field.type for field in fields(schema)}.get(name)
                schema = kind if isinstance(kind, type) and is_dataclass(kind) else schema
            known = sorted(field.name for field in fields(schema))
            return f"{named}: unknown name{_meant(path[-1], known)}; known are {known}"
        case "missing":
            return f"{named} is missing; it has no default"
        case "value_error":
            return f"{where}.{error['ctx']['error']}"
    return f"{named}: got {error['input']!r}; {error['msg'][:1].lower()}{error['msg'][1:]}"


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
