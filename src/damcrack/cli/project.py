"""A project of one's own: the repository's graph and values, where the code is installed and not beside them."""

import re
import shutil
from importlib.metadata import distributions
from pathlib import Path

import click

import damcrack
from damcrack.code import PACKAGE, code_name
from damcrack.files import writable, write_bytes

COPIED = (
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    "params.yaml",
    "imagery.yaml",
    "snapshots/photos.csv",
    "snapshots/miniimagenet.csv",
)
VERSIONS = "versions.txt"  # among the deps it takes the place of the code and the locked requirements
TEACHER = "shipped/training"
NEXT = """{0} holds a project that trains on the built-in sample; next:
  cd {0}; dvc repro; damcrack track send; damcrack summary
then photos/, masks of the same stem in photos/masks/, in params.yaml sources: {{own: photos}},
  and damcrack snapshot photos; dvc repro"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write the graph, its values and folders for a project of your own.

    FOLDER gets dvc.yaml, params.yaml, imagery.yaml, snapshots/ and photos/. What is there already stays as it is, but
    for versions.txt: after an update of damcrack run this again, and the stages run with the new code.
    """
    with writable(folder):
        for name, content in _files(folder).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == VERSIONS or not path.exists():
                write_bytes(path, content)
            elif path.read_bytes() != content:
                click.echo(f"{path} was there and differs; left as it is")
        (folder / "photos/masks").mkdir(parents=True, exist_ok=True)
        shutil.copytree(PACKAGE / "shipped/training", folder / TEACHER, dirs_exist_ok=True)
    click.echo(NEXT.format(folder))


def _files(folder: Path) -> dict[str, bytes]:
    """Contents by name. A wheel carries the repository's files; in a checkout they are beside src/."""
    carried = PACKAGE / "project"
    root = carried if carried.is_dir() else PACKAGE.parents[1]
    files = {name: (root / name).read_bytes() for name in COPIED}
    files["dvc.yaml"] = graph_without_code((root / "dvc.yaml").read_text(encoding="utf-8")).encode()
    ignored = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    files[".gitignore"] = "".join(f"{line}\n" for line in ignored if "experiments" not in line).encode()
    files[VERSIONS] = _versions().encode()
    if not any((parent / ".git").exists() for parent in (folder.absolute(), *folder.absolute().parents)):
        files[".dvc/config.local"] = b"[core]\n    no_scm = true\n"
    return files


def graph_without_code(text: str) -> str:
    """The graph of dvc.yaml for a folder without src/ and requirements/."""
    text = text.replace("src/damcrack/shipped/training", TEACHER).replace("requirements/lock.txt", VERSIONS)
    return re.sub(r"^ +- src/\S+\n", "", text, flags=re.MULTILINE)


def _versions() -> str:
    """The code by its hash, and all that is installed: other versions are another input of every stage."""
    installed = {(one.metadata["Name"] or "").lower(): one.version for one in distributions()}
    lines = sorted(
        f"{name}=={version}" for name, version in installed.items() if name not in ("", "damcrack")
    )
    return "\n".join([f"damcrack=={damcrack.__version__}+{code_name()}", *lines, ""])
