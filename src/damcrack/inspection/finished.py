"""A finished survey as another command finds it: the folder that `damcrack inspect` wrote."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from damcrack.files import InputError
from damcrack.inspection.findings import FILE, Findings


@dataclass(frozen=True)
class FinishedSurvey:
    """`values` are the settings that it was made with; `folders` those of the photos, by name."""

    root: Path
    model_sha256: str
    values: Mapping[str, Any]
    folders: Mapping[str, Path]

    @classmethod
    def read(cls, root: Path) -> "FinishedSurvey":
        """Read a survey; files in it that it did not write are left alone.

        Raises:
            InputError: it is no survey, was not finished, or another version wrote it.
        """
        again = "run `damcrack inspect` to its end"
        if not (root / "survey.json").is_file():
            raise InputError(f"{root} is no finished survey: survey.json is missing; {again}")
        try:
            made = json.loads((root / "survey.json").read_text(encoding="utf-8"))
            folders = {
                Findings.read(at.parent).photo: at.parent for at in sorted(root.glob(f"photos/*/{FILE}"))
            }
            return cls(root, made["model_sha256"], made["values"], dict(sorted(folders.items())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{root} is no survey of this version ({type(error).__name__}: {error}); {again} with it"
            ) from error
