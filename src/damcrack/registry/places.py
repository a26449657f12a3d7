"""Where a model is: a folder, the shipped one, or a version of the registry, by any of its names."""

from pathlib import Path
from typing import TYPE_CHECKING

from damcrack.cracks.detector import SHIPPED

if TYPE_CHECKING:
    from damcrack.registry.registry import MlflowRegistry

REGISTRY, SHIPPED_NAME = "models:/", "shipped"


def model_folder(text: str) -> Path:
    """The model as files: a path as it is, `shipped` the package's own, models:/NAME@ALIAS from the registry."""
    if text == SHIPPED_NAME and not Path(text).exists():
        return SHIPPED
    if not text.startswith(REGISTRY):
        return Path(text)
    from damcrack.registry.registry import fetch_model

    return fetch_model(text)


def with_version(text: str) -> str:
    """The same model under a name that will mean no other: models:/NAME/VERSION for models:/NAME@ALIAS.

    Raises:
        InputError: the registry knows no such model or alias.
    """
    if not text.startswith(REGISTRY):
        return text
    from damcrack.registry.registry import MlflowRegistry, version_at

    return REGISTRY + "/".join(version_at(MlflowRegistry("damcrack inspect"), text))


def resolve(registry: "MlflowRegistry", target: str, model_name: str) -> tuple[str, str]:
    """Model name and version of VERSION, NAME/VERSION, NAME@ALIAS, NAME (its challenger) or models:/...

    Raises:
        InputError: the registry knows no such model or alias.
    """
    from damcrack.registry.gate import CHALLENGER
    from damcrack.registry.registry import version_at

    target = target.removeprefix(REGISTRY)
    if target.isdigit():
        return model_name, target
    if "/" not in target and "@" not in target:
        target = f"{target}@{CHALLENGER}"
    return version_at(registry, f"{REGISTRY}{target}")
