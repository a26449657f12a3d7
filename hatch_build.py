"""The package's page on an index: the README, whose links lead into the repository, and the addresses beside it.

DAMCRACK_REPOSITORY is the address of the repository's files, as https://HOST/OWNER/NAME/blob/v0.1.0; without it
links to files of the repository become plain text, because they would lead nowhere.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAPER = "https://doi.org/10.3390/w15152839"
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|#)[^)]+)\)")


def for_index(readme: str, repository: str) -> str:
    """The README with absolute links and pictures, or without them."""
    files = repository.rstrip("/")

    def replaced(link: re.Match[str]) -> str:
        picture, text, target = link["picture"], link["text"], link["target"]
        if not files:
            return "" if picture else text
        place = files.replace("/blob/", "/raw/") if picture else files
        return f"{picture}[{text}]({place}/{target})"

    return LINK.sub(replaced, readme)


class Hook(MetadataHookInterface):
    """Sets what pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling once a build."""
        repository = os.environ.get("DAMCRACK_REPOSITORY", "")
        text = for_index((Path(self.root) / "README.md").read_text(encoding="utf-8"), repository)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = {"Paper": PAPER}
        if repository:
            metadata["urls"] |= {"Source": repository.split("/blob/")[0]}
