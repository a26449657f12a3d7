"""A finished survey as another command finds it: the folder that `damcrack inspect` wrote."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from damcrack.cracks.findings import SUMMARY, Findings, survey_folders
from damcrack.files import InputError


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
        try:
            folders = survey_folders(root)
            values = json.loads((root / SUMMARY).read_text(encoding="utf-8"))
            names = {Findings.read(folder).photo: folder for folder in folders}
            return cls(root, values["model_sha256"], values["values"], names)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{root} is not a survey of this version ({type(error).__name__}: {error}); inspect the photos again"
            ) from error
