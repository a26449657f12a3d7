"""Names are the same everywhere, imports point one way, and the graph knows which code it runs."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from damcrack.params import check_params, config_class, read_params, section_items
from damcrack.stage_table import STAGES

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "damcrack"
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STUDY = yaml.safe_load((ROOT / "experiments/paper/dvc.yaml").read_text())["stages"]
FLOOR = {"files", "messages", "run", "code", "__init__"}
# From bottom to top; each room may import itself, the floor, and the rooms and modules named here.
MAY_IMPORT = {
    "scores": set(),
    "sample": set(),
    "data": {"sample"},
    "train": {"data"},
    "export": {"data", "scores", "train"},
    "cracks": {"data", "scores"},
    "inspection": {"cracks", "data", "scores"},
    "evaluate": {"data", "scores", "train"},
    "stage_table": set(),
    "params": {"stage_table"},
    "progress": set(),
    "storage": {"data"},
    "tracking": {"progress"},
    "registry": {"cracks", "data", "scores", "storage", "tracking"},
    "stage_runner": {
        "params",
        "progress",
        "registry",
        "stage_table",
        "storage",
        "tracking",
    },
    "imagery": {"cracks", "data", "inspection", "params", "progress", "registry", "storage"},
    "kubeflow": {"imagery", "params", "stage_runner", "storage", "tracking"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__main__"] = {"cli"}
HOMES = {
    "mlflow": {"registry", "tracking"},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "pydantic": {"params", "config"},
    "click": {"cli"},
    "kfp": {"kubeflow", "cli"},
    "dvc": {"kubeflow"},
    "torch": {"train", "export", "evaluate"},
}


def module_file(name: str) -> Path | None:
    """File of a dotted module of ours, or None if it is not a module."""
    path = SOURCE.parent / Path(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def imported_names(path: Path) -> frozenset[str]:
    """Modules that a file imports anywhere in it; `from package import name` counts as package.name too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def our_imports(path: Path) -> set[Path]:
    files = (module_file(name) for name in imported_names(path) if name.startswith("damcrack"))
    return {file for file in files if file is not None}


def closure(path: Path) -> set[Path]:
    """The file and everything of ours that it imports, directly or not."""
    found, waiting = {path}, [path]
    while waiting:
        new = our_imports(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def room(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py")


def stage_of(dvc_stage: str) -> str:
    """`finetune-scratch` is a group of the stage `finetune`."""
    return dvc_stage.split("-")[0]


def stage_file(name: str) -> Path:
    path = module_file(STAGES[name].module)
    assert path is not None
    return path


def spec(dvc_stage: str) -> dict[str, object]:
    entry: dict[str, object] = GRAPH[dvc_stage]
    return entry.get("do", entry)  # type: ignore[return-value]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    """A room imports only rooms below it; the floor imports the floor alone."""
    here = room(path)
    allowed = FLOOR if here in FLOOR else FLOOR | {here} | MAY_IMPORT[here]
    assert {room(file) for file in our_imports(path)} <= allowed


@pytest.mark.parametrize(("library", "homes"), HOMES.items())
def test_heavy_libraries_have_their_rooms(library: str, homes: set[str]) -> None:
    """What is slow to import or needs an extra is imported in its rooms alone."""
    users = {
        "config" if path.name == "config.py" else room(path)
        for path in SOURCE.rglob("*.py")
        for name in imported_names(path)
        if name.split(".")[0] == library
    }
    assert users <= homes


def test_nothing_of_ours_unpickles() -> None:
    """No module imports a pickler, and what can unpickle is told not to: a tampered file must not run code."""
    picklers = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for path in SOURCE.rglob("*.py"):
        assert not {name.split(".")[0] for name in imported_names(path)} & picklers, path
        text = path.read_text()
        assert text.count("torch.load(") == text.count("weights_only=True)"), path
        assert "allow_pickle=True" not in text and "pickle.load" not in text, path


def test_one_name_per_concept() -> None:
    """Stage function, schema, command, params section and DVC stage carry one name."""
    params = read_params(ROOT / "params.yaml")
    assert {stage_of(name) for name in GRAPH} == set(STAGES) == set(params)
    for name in STAGES:
        assert config_class(name).__name__ == f"{name.capitalize()}Config"
        tree = ast.parse(stage_file(name).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("dvc_stage", GRAPH)
def test_stage_runs_its_own_command(dvc_stage: str) -> None:
    """The command of a DVC stage is the command of that name, writing the declared output."""
    words = str(spec(dvc_stage)["cmd"]).split()
    assert words[:2] == ["damcrack", stage_of(dvc_stage)]
    assert [words[words.index("--out") + 1]] == spec(dvc_stage)["outs"]


@pytest.mark.parametrize("dvc_stage", GRAPH)
def test_dependencies_name_exactly_the_code_that_runs(dvc_stage: str) -> None:
    """Every file of ours that a stage imports is under one of its deps, and no code dep is superfluous."""
    needed = closure(stage_file(stage_of(dvc_stage)))
    needed = {file for file in needed if file.name != "__init__.py"}
    deps = [
        ROOT / dep
        for dep in spec(dvc_stage)["deps"]  # type: ignore[attr-defined]
        if dep.startswith("src/") and not dep.endswith((".css", "/shipped/training"))
    ]
    missing = {str(file.relative_to(ROOT)) for file in needed if not any(map(file.is_relative_to, deps))}
    superfluous = {
        str(dep.relative_to(ROOT)) for dep in deps if not any(f.is_relative_to(dep) for f in needed)
    }
    assert (missing, superfluous) == (set(), set())


@pytest.mark.parametrize("dvc_stage", GRAPH)
def test_every_stage_depends_on_the_locked_requirements(dvc_stage: str) -> None:
    """Other versions of the libraries are another input."""
    assert "requirements/lock.txt" in spec(dvc_stage)["deps"]  # type: ignore[operator]


@pytest.mark.parametrize(
    "file", ["params.yaml", *sorted(f"params/{p.name}" for p in (ROOT / "params").iterdir())]
)
def test_value_sets_share_one_schema(file: str) -> None:
    """Each committed value set is valid, and has the demo's stages."""
    names = check_params(read_params(ROOT / file), list(STAGES))
    assert {name.split("@")[0] for name in names} == set(STAGES)


@pytest.mark.parametrize("group", STUDY)
def test_experiments_run_the_graphs_own_stages(group: str) -> None:
    """A group of cells runs the command of its stage, on the code that the same stage of the graph depends on."""
    cells, stage = STUDY[group], stage_of(group)
    words = str(cells["cmd"]).split()
    assert words[:2] == ["damcrack", stage]
    assert [words[words.index("--out") + 1]] == cells["outs"]
    same = next(spec(name) for name in GRAPH if stage_of(name) == stage)
    shared = {"../../" + dep for dep in same["deps"] if dep.startswith(("src/", "requirements/"))}  # type: ignore[attr-defined]
    assert {dep for dep in cells["deps"] if dep.startswith("../")} == shared


def test_experiments_name_items_that_there_are() -> None:
    """Every list of cells names items of params.yaml, which is valid; none is left out of the lists."""
    params = read_params(ROOT / "experiments/paper/params.yaml")
    check_params(params, list(STAGES))
    cells = yaml.safe_load((ROOT / "experiments/paper/cells.yaml").read_text())["cells"]
    distilled = {f"resnet18-{how}" for how in cells["distilled"]}
    named = {
        "pretrain": {*cells["pretrain"], *cells["pretrain_more"]},
        "distill": {*cells["distill"], *cells["distill_more"], *cells["distill_under_soft_teacher"]},
        "finetune": {f"{name}-scratch" for name in cells["scratch"] + cells["more_scratch"]}
        | {f"{name}-pretrained" for name in cells["pretrained"] + cells["more_pretrained"]}
        | distilled
        | {f"resnet18-{how}-head" for how in cells["head"]}
        | {f"resnet18-{how}-taught" for how in cells["taught"]},
    }
    for stage, names in named.items():
        assert names == {name for name, _ in section_items(params[stage])}


@pytest.mark.parametrize("arguments", [["--help"], ["tile", "--help"], ["finetune", "--help"]])
def test_help_does_not_load_heavy_libraries(arguments: list[str]) -> None:
    """Help answers without importing torch, mlflow, dvc or pydantic."""
    code = (
        "import sys\nfrom damcrack.cli.main import main\n"
        f"sys.argv = ['damcrack', *{arguments!r}]\n"
        "try:\n    main()\nfinally:\n"
        "    print('LOADED', sorted({'torch', 'mlflow', 'dvc', 'pydantic', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_photos_and_tiles_do_not_load_torch() -> None:
    """Taking photos in and cutting tiles works, and starts fast, without torch."""
    code = (
        "import sys, damcrack.data.photos, damcrack.data.tile, damcrack.data.miniimagenet\n"
        "print('LOADED', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED False" in done.stdout


def test_no_secrets_hosts_or_machine_paths_are_committed() -> None:
    """Lock files carry versions and hashes; no line names an index."""
    for path in (ROOT / "requirements").iterdir():
        lines = path.read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith(("--index", "-i "))]


README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`damcrack ([a-z-]+)", README))))
def test_commands_of_the_readme_exist(name: str) -> None:
    """Each has its own help."""
    from damcrack.cli.main import cli

    assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_targets_modules_and_files_of_the_readme_exist() -> None:
    """Make TARGET, python -m MODULE, and every link to a file."""
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{name}:" in makefile for name in re.findall(r"`make ([a-z-]+)", README))
    for module in re.findall(r"python -m ([a-z_.]+)", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for page in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_version_has_one_place() -> None:
    """The package reads it from its code, and the changelog is about it."""
    import damcrack

    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    assert "version:" not in (ROOT / "CITATION.cff").read_text().replace("cff-version:", "")
    first = re.search(r"^## \[(?:Unreleased|([\d.]+))\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None and first[1] in (None, damcrack.__version__)


def test_hooks_and_workflow_run_the_checks_of_make() -> None:
    """What `make test` checks, each commit and each push check too, with tools that are there already."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    recipe = re.search(r"^test:.*\n\t@(.+)\n", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    for check in recipe[1].split(" && "):
        tool = check.split(" .")[0].split(" --")[0]
        assert [entry for entry in entries if entry.startswith(f".venv/bin/{tool}")], tool
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert {"run": ".ci/run"} in jobs["everything"]["steps"]


# Words that a native engineer would stop at.
ODD_WORDS = re.compile(
    r"\b(?:mend(?:s|ed|ing)?|anew|surest|whole or not at all|trained nothing|goes on where)\b", re.IGNORECASE
)


def strings_of(path: Path) -> list[str]:
    """Texts in a module that are not docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_messages_are_plain_english(path: Path) -> None:
    """No string of the code uses them."""
    assert [text for text in strings_of(path) if ODD_WORDS.search(text)] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "docs", "src/damcrack"])
def test_pages_are_plain_english(page: str) -> None:
    """Nor do the documentation and the templates of pages."""
    files = [ROOT / page, *(ROOT / page).rglob("*.md"), *(ROOT / page).rglob("*.j2")]
    texts = {file: file.read_text() for file in files if file.is_file() and file.name != "LOG.md"}
    found = {str(file.relative_to(ROOT)): ODD_WORDS.findall(text) for file, text in texts.items()}
    assert {name: words for name, words in found.items() if words} == {}


def test_extras_that_anything_names_exist() -> None:
    """Instructions, workflows, images and error messages install extras of pyproject.toml alone."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    places = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    for folder, kind in (("docs", "*.md"), (".github", "*.yml"), ("infra", "*"), ("src", "*.py")):
        places += [path for path in (ROOT / folder).rglob(kind) if path.is_file()]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(errors="replace") for path in places}
    named = {
        (name, extra)
        for name, text in texts.items()
        for extras in re.findall(r"""(?:damcrack|["' ]\.)\[([a-z][a-z0-9,]*)\]""", text)
        for extra in extras.split(",")
    }
    assert {"cad", "gis", "s3"} <= {extra for _, extra in named}
    assert {one for one in named if one[1] not in known} == set()
