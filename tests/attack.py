"""Attack every command that writes, look at what is there, run it again.

    python tests/attack.py KIND NUM SEED FOLDER [NAME...]

KIND   kills   killed up to three times in a row, half of them before a change of the file system
       full    on a disk (a tmpfs) that is full before the command ends
       twins   two at once
NAME   the situations to attack, by their first words; default: all

Prints the number of trials by situation and outcome as JSON; ends with an AssertionError where something was lost,
doubled or left over, or where a user would see a traceback.
"""

import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import yaml

import surveys
import walls
from damcrack.cli.main import main
from damcrack.files import InputError, read_json, sha256_file, write_json
from damcrack.inspection.survey_folder import FinishedSurvey
from smallest import one_chain, smallest

CHECKOUT = Path(__file__).parents[1]
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
NOTES = {"notes.docx": b"assessment", "photos/mine.txt": b"mine"}
SURVEYS, DATA, MODELS = range(3)  # how much a situation needs to be there
PARTS_OF_MODELS = (
    "torch",
    "torchvision",
    "safetensors",
    "onnx",
    "onnxscript",
    "sklearn",
    "matplotlib.pyplot",
    "mlflow",
)
# What differs from run to run: times and random numbers.
RANDOM = re.compile(r"\d{8}T\d{6}|[0-9a-f]{8,}|\d+(?=[^/]*\.json$)")
# What MLflow holds of runs that were killed too; a file that a store of photos had not finished; one of a killed run
# that waits to be sent, and goes with its folder then.
IGNORED = re.compile(r"^mlartifacts/|/\.new-|^\.damcrack/pending/.*\.part$")
Tree = Mapping[str, str]


@dataclass(frozen=True)
class Situation:
    """A command, what it writes, what is in that place before, and what has to be there for it."""

    command: str
    out: str = "out"
    before: str = ""  # a command, or `foreign`: files of somebody else
    needs: int = SURVEYS
    whole_at_once: bool = True

    @property
    def is_survey(self) -> bool:
        return self.command.startswith("inspect day")


INSPECT = "inspect day1 --model model.onnx --out out"
COMPARE, REPORT = "compare survey1 survey3 --out out", "report survey1 --out out"
TILE = "tile --photos data/photos --out out"
DISTILL = "distill --item dynamic --images data/miniimagenet --teacher models/pretrain/resnet50 --out out"
TEACHER = CHECKOUT / "src/damcrack/shipped/training"
FINETUNE = f"finetune --item lite0-detector --tiles data/tiles --teacher {TEACHER} --out out"
OF_GRAPH = "--photos data/photos --tiles data/tiles"
DIGEST = "sha256:" + "a" * 64
REGISTER = f"register {OF_GRAPH} --evaluation results/evaluate --export results/export --out out"
SITUATIONS = {
    "inspect, new": Situation(INSPECT),
    "inspect, over an old survey": Situation(
        INSPECT, before=f"{INSPECT} --set threshold=0.3 --set join_px=3"
    ),
    "inspect, a second folder": Situation(INSPECT.replace("day1", "day2"), before=INSPECT),
    "inspect, over a foreign folder": Situation(INSPECT, before="foreign"),
    "compare, new": Situation(COMPARE),
    "compare, over an old one": Situation(COMPARE, before="compare survey3 survey1 --out out"),
    "compare, over a foreign folder": Situation(COMPARE, before="foreign"),
    "report, new": Situation(REPORT),
    "report, over an old one": Situation(REPORT, before="report survey3 --out out"),
    "report, over a foreign folder": Situation(REPORT, before="foreign"),
    "review": Situation("review survey1 --out out"),
    "export-survey": Situation("export-survey survey1 --format jpeg --format dxf --format gpkg --out out"),
    "import-coco": Situation("import-coco survey1/cracks.coco.json day1 --out out"),
    "snapshot": Situation(
        "snapshot photos --params folder.yaml", "snapshots/photos.csv", before="old snapshot"
    ),
    "imagery take-in": Situation("imagery take-in", "store", whole_at_once=False),
    "imagery inspect": Situation(
        "imagery inspect --model model.onnx", "store", "imagery take-in", whole_at_once=False
    ),
    "imagery snapshot": Situation("imagery snapshot --out s.csv", "s.csv", "imagery take-in"),
    "photos": Situation("photos --snapshot snapshots/photos.csv --out out", needs=DATA),
    "miniimagenet": Situation("miniimagenet --snapshot snapshots/miniimagenet.csv --out out", needs=DATA),
    "tile": Situation(TILE, needs=DATA),
    "tile, over an old set": Situation(TILE, before=f"{TILE} --set seed=1", needs=DATA),
    "tiles-to-folders": Situation("tiles-to-folders --tiles data/tiles --out out", needs=DATA),
    "freeze": Situation(f"freeze {OF_GRAPH} --out out", needs=DATA),
    "pretrain": Situation("pretrain --item resnet50 --images data/miniimagenet --out out", needs=MODELS),
    "distill": Situation(DISTILL, needs=MODELS),
    "finetune": Situation(FINETUNE, needs=MODELS),
    "finetune, over an old model": Situation(FINETUNE, before=f"{FINETUNE} --set seed=1", needs=MODELS),
    "evaluate": Situation("evaluate --tiles data/tiles --models models --out out", needs=MODELS),
    "export": Situation(
        "export --model models/finetune/lite0-detector --tiles data/tiles --out out", needs=MODELS
    ),
    "case study": Situation(
        "inspect data/photos --tiles data/tiles --model results/export --params params.yaml --out out",
        needs=MODELS,
    ),
    "register": Situation(REGISTER, needs=MODELS),
    "promote": Situation(
        "promote 1 --evaluation-set results/register/evaluation-set",
        "mlflow.db",
        needs=MODELS,
        whole_at_once=False,
    ),
    "pipeline compile": Situation(
        f"pipeline compile --remote s3://dam/dvc --revision abc --cpu-image cpu@{DIGEST} --train-image train@{DIGEST} "
        "--out out.yaml",
        "out.yaml",
    ),
    "track send": Situation("track send", "mlflow.db", needs=MODELS, whole_at_once=False),
}
STEPS = {
    DATA: (
        "photos --snapshot snapshots/photos.csv --out data/photos",
        "miniimagenet --snapshot snapshots/miniimagenet.csv --out data/miniimagenet",
        "tile --photos data/photos --out data/tiles",
    ),
    MODELS: (
        "pretrain --item resnet50 --images data/miniimagenet --out models/pretrain/resnet50",
        DISTILL.replace(" out", " models/distill/dynamic"),
        "finetune --item resnet18-dynamic --tiles data/tiles --init models/distill/dynamic "
        "--out models/finetune/resnet18-dynamic",
        FINETUNE.replace(" out", " models/finetune/lite0-detector"),
        "evaluate --tiles data/tiles --models models --out results/evaluate",
        "export --model models/finetune/lite0-detector --tiles data/tiles --out results/export",
        REGISTER.replace("--out out", "--out results/register"),
    ),
}


def load_parts(needs: int) -> None:
    """Import what the commands need once, before the forks."""
    for name in (
        "cv2",
        "onnxruntime",
        "jinja2",
        "scipy.ndimage",
        *(PARTS_OF_MODELS if needs == MODELS else ()),
    ):
        import_module(name)
    signed = import_module("damcrack.inspection.signed")
    signed.find_browser = lambda: None  # a PDF holds the time at which it was printed
    if needs == MODELS:
        checkpoint = import_module("damcrack.train.checkpoint")
        checkpoint.Checkpoint.__init__.__defaults__ = (0.0,)  # after every epoch
        import_module("mlflow.onnx")
        import_module("damcrack.registry.registry")


def forked(work: Callable[[], None], root: Path, kill_at: int = 0) -> int:
    """Start `work` in a process of its own, in `root`; returns the process' number.

    It is killed before the `kill_at`-th change of the file system. What it prints is appended to log.txt beside `root`.
    """
    pid = os.fork()
    if pid:
        return pid
    code, changes = 1, [0]
    log = os.open(root.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        os.chdir(root)
        sys.addaudithook(counter(changes, kill_at))
        work()
        code = 0
    except SystemExit as end:
        print(end, flush=True)
        code = 0 if end.code in (None, 0) else 1
    except BaseException:
        traceback.print_exc()
        code = 3
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        (root.parent / "changes.txt").write_text(str(changes[0]))
        os._exit(code)


def ended(pid: int, kill_after_s: float = 0.0) -> int:
    """Wait for a process, killed after a time; its exit status, -9 if it was killed."""
    deadline = time.monotonic() + kill_after_s
    while kill_after_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counter(changes: list[int], kill_at: int) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook that counts changes of the file system, and kills the process before the N-th."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if event in CHANGES or (writes and not str(arguments[0]).startswith("/dev")):
            changes[0] += 1
            if changes[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def start(root: Path, command: str, kill_at: int = 0) -> int:
    """Start a command line in `root`."""

    def work() -> None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ |= {"DAMCRACK_TRACK": "later", "TMPDIR": str(root / "tmp"), "DAMCRACK_TRACEBACK": ""}
        import_module("tempfile").tempdir = None
        sys.argv = ["damcrack", *command.split()]
        main()

    return forked(work, root, kill_at)


def damcrack(root: Path, command: str) -> int:
    return ended(start(root, command))


def call(root: Path, command: str) -> None:
    """Run a command that has to succeed."""
    assert damcrack(root, command) == 0, f"{command}:\n{(root.parent / 'log.txt').read_text()[-3000:]}"


_known: dict[tuple[int, int, int], str] = {}


def tree(folder: Path) -> dict[str, str]:
    """Hashes of all files, hidden ones too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            of = path.stat()
            key = of.st_ino, of.st_mtime_ns, of.st_size
            if of.st_size < 2**20:
                found[path.relative_to(folder).as_posix()] = sha256_file(path)
            else:
                _known[key] = _known.get(key) or sha256_file(path)
                found[path.relative_to(folder).as_posix()] = _known[key]
    return found


def prepare(root: Path, needs: int) -> None:
    """Photos of two days, a model, a survey of each day; with more `needs` the demo's graph, as small as it gets.

    A preparation that broke off goes on.
    """
    if not (root / "snapshots").is_dir():
        draw_photos(root)
    for survey in (root / "survey1", root / "survey3"):
        if not (survey / "decisions.json").is_file():
            call(root, f"inspect day{survey.name[-1]} --model model.onnx --out {survey.name}")
            decided = [surveys.decide(known, one, "accepted") for known, one in surveys.all_findings(survey)]
            surveys.write_decisions(survey / "decisions.json", decided)
    shutil.copy(CHECKOUT / "dvc.yaml", root)
    (root / "imagery.yaml").write_text("incoming: day1\nstore: store\nmin_side_px: 64\n")
    params = one_chain(smallest(CHECKOUT), {"network": "resnet18", "epochs": 2})
    params["distill"]["common"]["epochs"] = params["finetune"]["shipped"]["lite0-detector"]["epochs"] = 2
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    params["photos"]["sources"] = {"own": "day1"}
    (root / "folder.yaml").write_text(yaml.safe_dump(params))
    for command in itertools.chain(*(STEPS.get(level, ()) for level in range(needs + 1))):
        if not (root / command.split()[-1]).exists():
            call(root, command)


def draw_photos(root: Path) -> None:
    """Three photos of each day, and a detector."""

    def draw() -> None:
        for day in (1, 2):
            Path(f"day{day}").mkdir()
            for number in range(3):
                wall = walls.concrete((224, 336), number)
                cover = walls.coverage((224, 336), walls.line((150, 110), 20.0 * number, 120 + 20 * day), 5.0)
                walls.cv2.imwrite(f"day{day}/{day}-{number}.jpg", walls.photo(wall, cover))
        walls.write_darkness_detector(Path("model.onnx"))

    (root / "tmp").mkdir(parents=True)
    assert ended(forked(draw, root)) == 0
    shutil.copytree(root / "day1", root / "day3")
    for photo in (root / "day2").iterdir():  # other cracks under the names of the first day
        shutil.copy(photo, root / "day3" / photo.name.replace("2-", "1-"))
    shutil.copytree(CHECKOUT / "snapshots", root / "snapshots")


def copy_of(template: Path, root: Path) -> None:
    """A copy of a folder; large files, which we never change in place, are links."""

    def copy(source: str, target: str) -> None:
        large = Path(source).stat().st_size > 2**20 and not source.endswith(".db")
        (os.link if large and root.stat().st_dev == template.stat().st_dev else shutil.copy2)(source, target)

    root.mkdir(exist_ok=True)
    shutil.copytree(template, root, copy_function=copy, dirs_exist_ok=True)


def set_up(root: Path, folder: Path, before: str) -> None:
    """A copy of the template with what is there before, which is made once."""
    template = folder / "template"
    if before:
        template = folder / f"before-{hashlib.sha256(before.encode()).hexdigest()[:8]}"
        if not template.is_dir():
            copy_of(folder / "template", folder / "trial.before")
            write_before(folder / "trial.before", before)
            (folder / "trial.before").rename(template)
    copy_of(template, root)


def write_before(root: Path, before: str) -> None:
    """Files of somebody else, or what another command writes."""
    if before == "foreign":
        for name, content in NOTES.items():
            (root / "out" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "out" / name).write_bytes(content)
    elif before == "old snapshot":
        (root / "snapshots/photos.csv").write_text("source,name,sha256\nold,1.jpg,00\n")
    else:
        call(root, before)
        if (root / "out").is_dir():
            (root / "out/notes.docx").write_bytes(NOTES["notes.docx"])


@dataclass(frozen=True)
class Reference:
    """What a command makes of a situation when nobody disturbs it."""

    before: Tree
    after: Tree
    status: int
    num_changes: int
    seconds: float
    num_bytes: int
    facts: object

    @classmethod
    def of(cls, situation: Situation, folder: Path) -> "Reference":
        """Run it twice: what differs between the two is left out of `after`, all but its name."""
        trees = []
        for _ in range(2):
            root = folder / "trial"
            set_up(root, folder, situation.before)
            before, size, started = tree(root), num_bytes(root), time.monotonic()
            status = damcrack(root, situation.command)
            seconds, num_changes = time.monotonic() - started, int((folder / "changes.txt").read_text())
            trees.append(tree(root))
            more, found = num_bytes(root) - size, facts(root)
            shutil.rmtree(root)
        after = {
            name: trees[0].get(name, "") if trees[0].get(name) == trees[1].get(name) else ""
            for name in trees[0]
        }
        return cls(before, after, status, num_changes, seconds, max(more, 2**16), found)

    def different(self, last: Tree) -> list[str]:
        """What is not as in `after`: missing or other files, and those of a kind that it does not hold."""
        kinds = {RANDOM.sub("*", name) for name in self.after}
        # A catalogue holds what tells one file in a folder from another: its inode.
        stable = {name: digest for name, digest in self.after.items() if digest and "/catalogue/" not in name}
        changed = [name for name, digest in stable.items() if last.get(name) != digest]
        left = [name for name in last if RANDOM.sub("*", name) not in kinds and not IGNORED.search(name)]
        return changed + [f"{name} (left over)" for name in left]


def num_bytes(root: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in root.rglob("*"))


def facts(root: Path) -> object:
    """What the registry and the store of photos say, without times and random numbers."""
    import sqlite3

    found: list[object] = []
    if (root / "mlflow.db").is_file():
        with closing(sqlite3.connect(f"file:{root / 'mlflow.db'}?mode=ro", uri=True)) as base:
            for query in (
                "select name, version from model_versions order by 1, 2",
                "select alias, version from registered_model_aliases order by 1",
                "select count(*) from model_version_tags where key like 'decision.%'",
            ):
                found.append(base.execute(query).fetchall())
    catalogues = sorted((root / "store/catalogue").glob("*")) if (root / "store").is_dir() else []
    found.append([path.read_text().count("\n") for path in catalogues[-1:]])
    return json.loads(json.dumps(found))


def is_ours(name: str, situation: Situation) -> bool:
    """Whether a file is one of the output; notes may wait in the folder that was replaced until the next call."""
    if name == situation.out:
        return True
    folder, _, rest = name.partition("/")
    if folder != situation.out or rest.startswith(".") or rest in NOTES:
        return False
    return not (situation.is_survey and "/" in rest)  # folders of photos stay for the next call


def check_left(situation: Situation, left: Tree, reference: Reference, root: Path) -> str:
    """After an attack: nothing foreign is touched; what is there belongs to one call; whole is what is finished."""
    before, after = reference.before, reference.after
    unchanged = [n for n in before if after.get(n) == before[n] and n.partition("/")[0] != situation.out]
    wrong = [
        name for name in unchanged if left.get(name) != before[name] and not name.startswith(".damcrack/")
    ]
    assert not wrong, f"{wrong[0]} was changed"
    notes = [name for name in left if name.endswith(("notes.docx", "mine.txt"))]
    assert len(notes) == sum(name.endswith(("notes.docx", "mine.txt")) for name in before), "notes are lost"
    if not situation.whole_at_once:
        return "any"
    here, old, new = (
        {n: d for n, d in one.items() if is_ours(n, situation)} for one in (left, before, after)
    )
    new = {name: digest or here.get(name, "") for name, digest in new.items()}
    of_old = [name for name in here if here[name] != new.get(name)]
    of_new = [name for name in here if here[name] != old.get(name)]
    assert not (of_old and of_new), f"{of_old[0]} of one call lies next to {of_new[0]} of another"
    whole = is_whole(root / "out") if situation.is_survey else bool(here)
    assert not whole or here in (old, new), "half is taken for whole"
    return "finished" if whole else "unfinished"


def is_whole(out: Path) -> bool:
    """Whether our own readers take it for a finished survey."""
    try:
        return bool(FinishedSurvey.read(out).folders)
    except InputError:
        return False


class Disk:
    """A tmpfs at `root`, so large that what is in the template fits, and `more` bytes beside it."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)], check=True)

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.root)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.root)], check=True)
        self.root.rmdir()


class Trials:
    """Attacks on one folder; references are found out once."""

    def __init__(self, folder: Path, seed: int, names: Iterable[str]) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.situations = {name: SITUATIONS[name] for name in names}
        shutil.rmtree(folder / "trial", ignore_errors=True)  # of an attack that was broken off
        needs = max(one.needs for one in self.situations.values())
        load_parts(needs)
        prepare(folder / "template", needs)
        self.failures: list[str] = []

    def run(self, kind: str, num: int) -> dict[str, dict[str, int]]:
        counts: dict[str, Counter[str]] = {}
        attack = {"kills": self.kills, "full": self.full, "twins": self.twins}[kind]
        done, turns = 0, itertools.cycle(self.situations.items())
        while done < num:
            name, situation = next(turns)
            reference = self.reference(name)
            (self.folder / "log.txt").write_text("")
            try:
                outcomes = attack(situation, reference)
                assert "Traceback" not in self.log() and "Exception ignored" not in self.log(), "traceback"
            except AssertionError as error:
                outcomes = ["FAILED"]
                self.failures.append(f"{name}: {error}\n{self.log()[-3000:]}")
                print(self.failures[-1], file=sys.stderr, flush=True)
            counts.setdefault(name, Counter()).update(outcomes)
            (self.folder / f"{kind}.json").write_text(json.dumps(counts, indent=1))
            done += len(outcomes)
            shutil.rmtree(self.folder / "trial", ignore_errors=True)
        return {name: dict(one) for name, one in counts.items()}

    def reference(self, name: str) -> Reference:
        """What a situation becomes; found out once for all attacks in the folder."""
        path = self.folder / f"reference {name}.json"
        if not path.is_file():
            found = Reference.of(self.situations[name], self.folder)
            assert found.status == (1 if "foreign" in name else 0), f"{name}: {self.log()[-3000:]}"
            write_json(path, asdict(found))
        return Reference(**read_json(path))

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    def kills(self, situation: Situation, reference: Reference) -> list[str]:
        root, rng, outcomes = self.folder / "trial", self.rng, []
        set_up(root, self.folder, situation.before)
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.5:
                how = f"before change {(at := rng.randint(1, max(1, reference.num_changes)))}"
                status = ended(start(root, situation.command, at))
            else:
                how = f"after {(after_s := rng.uniform(0.002, reference.seconds)):.3f} s"
                status = ended(start(root, situation.command), after_s)
            state = check_left(situation, tree(root), reference, root)
            outcomes.append(f"{'killed' if status == -9 else 'ended before'}, {state}")
            if status != -9:
                break
        self.check_again(situation, reference, how)
        return outcomes

    def check_again(self, situation: Situation, reference: Reference, how: str) -> None:
        root = self.folder / "trial"
        again = damcrack(root, situation.command)
        assert again == reference.status, f"{how}: the next call ended with {again}"
        self.check_end(reference, how)

    def check_end(self, reference: Reference, how: str) -> None:
        root = self.folder / "trial"
        different = reference.different(tree(root))
        assert not different, f"{how}: {different[:4]} not as without the attack"
        assert facts(root) == reference.facts, f"{how}: {facts(root)} instead of {reference.facts}"

    def full(self, situation: Situation, reference: Reference) -> list[str]:
        root, disk = self.folder / "trial", Disk(self.folder / "trial", 2**34)
        try:
            set_up(root, self.folder, situation.before)
            more = self.rng.randrange(reference.num_bytes)
            of = os.statvfs(root)
            disk.resize((of.f_blocks - of.f_bfree) * of.f_bsize + max(more, 4096))
            status = damcrack(root, situation.command)
            state = check_left(situation, tree(root), reference, root)
            assert status in (0, 1), f"{more} bytes free: ended with {status}"
            disk.resize(2**34)
            self.check_again(situation, reference, f"{more} bytes free")
        finally:
            disk.close()
        return [f"{'full' if status == 1 else 'ended before'}, {state}"]

    def twins(self, situation: Situation, reference: Reference) -> list[str]:
        root = self.folder / "trial"
        set_up(root, self.folder, situation.before)
        first = start(root, situation.command)
        time.sleep(self.rng.choice((0.0, self.rng.uniform(0, reference.seconds))))
        second = start(root, situation.command)
        both = [ended(first), ended(second)]
        assert reference.status in both and set(both) <= {reference.status, 1}, f"ended with {both}"
        self.check_end(reference, "two at once")
        return ["one refused" if 1 in both and reference.status == 0 else "both ended"]


def main_trials(kind: str, num: int, seed: int, folder: Path, names: Iterable[str] = ()) -> list[str]:
    """Attack at least `num` times; print the counts, return what failed."""
    chosen = [name for name in SITUATIONS if not names or name.startswith(tuple(names))]
    folder.mkdir(parents=True, exist_ok=True)
    trials = Trials(folder, seed, chosen)
    print(json.dumps(trials.run(kind, num), indent=1))
    return trials.failures


if __name__ == "__main__":
    failed = main_trials(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
    sys.exit(f"{len(failed)} trials failed" if failed else 0)
