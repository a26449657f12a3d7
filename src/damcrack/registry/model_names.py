"""What a user may call a model: a folder, the shipped one, or a version of the registry, loaded only where needed."""

from pathlib import Path

from damcrack.cracks.detector import SHIPPED

REGISTRY, SHIPPED_NAME = "models:/", "shipped"


def model_folder(text: str) -> Path:
    """The model as files: a path as it is, `shipped` the package's own, models:/NAME@ALIAS from the registry.

    Raises:
        InputError: mlflow is missing, the registry does not answer, has no such version, or a file was changed.
    """
    own = (
        Path(text, "model.onnx").exists() or Path(text).is_file()
    )  # a project has a folder `shipped` with weights
    if text == SHIPPED_NAME and not own:
        return SHIPPED
    if not text.startswith(REGISTRY):
        return Path(text)
    from damcrack.registry.registry import MlflowRegistry

    registry = MlflowRegistry("damcrack inspect")
    return registry.fetch(*registry.version_at(text))


def with_version(text: str) -> str:
    """The same model under a name that will mean no other: models:/NAME/VERSION for models:/NAME@ALIAS.

    Raises:
        InputError: the registry knows no such model or alias.
    """
    if not text.startswith(REGISTRY):
        return text
    from damcrack.registry.registry import MlflowRegistry

    return REGISTRY + "/".join(MlflowRegistry("damcrack inspect").version_at(text))
