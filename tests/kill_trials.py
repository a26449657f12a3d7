"""Kill `damcrack` at random moments, look at what is there, run it again: python kill_trials.py NUM SEED FOLDER.

Prints the number of trials by situation and outcome as JSON; ends with an AssertionError where something was lost.
Half of the kills come before a change of the file system, half after a random time.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2  # loaded once, before the forks
import onnxruntime

import damcrack.inspection.compare
import damcrack.inspection.inspect
import damcrack.inspection.signed
import surveys
import walls
from damcrack.cli.main import main
from damcrack.cracks.findings import survey_folders
from damcrack.files import InputError

assert cv2, onnxruntime
damcrack.inspection.signed.find_browser = lambda: None  # a PDF holds the time at which it was printed
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
DAY1 = ("inspect", "day1", "--model", "model.onnx", "--out", "out")
OLD = (
    "inspect",
    "day1",
    "--model",
    "model.onnx",
    "--out",
    "out",
    "--set",
    "threshold=0.3",
    "--set",
    "join_px=3",
)
DAY2 = ("inspect", "day2", "--model", "model.onnx", "--out", "out")
COMPARE = ("compare", "survey1", "survey3", "--out", "out")
REPORT = ("report", "survey1", "--out", "out")
# What is in `out` before, and the command that is killed.
SITUATIONS: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "inspect, new": ((), DAY1),
    "inspect, over an old survey": ((OLD,), DAY1),
    "inspect, a second folder": ((DAY1,), DAY2),
    "inspect, over a foreign folder": ((("foreign",),), DAY1),
    "compare, new": ((), COMPARE),
    "compare, over an old one": ((("compare", "survey3", "survey1", "--out", "out"),), COMPARE),
    "compare, over a foreign folder": ((("foreign",),), COMPARE),
    "report, new": ((), REPORT),
    "report, over an old one": ((("report", "survey3", "--out", "out"),), REPORT),
    "report, over a foreign folder": ((("foreign",),), REPORT),
}
NOTES = {"notes.docx": b"assessment", "photos/mine.txt": b"mine"}


def forked(
    work: Callable[[], None], root: Path, kill_at: int = 0, kill_after_s: float = 0.0
) -> tuple[int, float]:
    """Run `work` in a process of its own; its exit status (-9: killed) and time."""
    started, pid = time.monotonic(), os.fork()
    if pid == 0:
        code = 1
        changes = [0]
        try:
            os.chdir(root)
            sys.stderr = sys.stdout = Path(root.parent, "log.txt").open("a")  # noqa: SIM115
            sys.addaudithook(counter(changes, kill_at))
            work()
            code = 0
        except SystemExit as end:
            print(end, flush=True)
            code = 0 if end.code in (None, 0) else 1
        finally:
            Path(root.parent, "changes.txt").write_text(str(changes[0]))
            os._exit(code)
    if kill_after_s:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, time.monotonic() - started


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


def damcrack(root: Path, command: tuple[str, ...], **kill: float) -> tuple[int, float]:
    def work() -> None:
        sys.argv = ["damcrack", *command]
        main()

    return forked(work, root, **kill)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def prepare(root: Path) -> None:
    """Photos of two days, a model, and a survey of each."""

    def draw() -> None:
        for day in (1, 2):
            Path(f"day{day}").mkdir()
            for number in range(3):
                wall = walls.concrete((224, 336), number)
                cover = walls.coverage((224, 336), walls.line((150, 110), 20.0 * number, 120 + 20 * day), 5.0)
                walls.cv2.imwrite(f"day{day}/{day}-{number}.jpg", walls.photo(wall, cover))
        walls.write_darkness_detector(Path("model.onnx"))

    root.mkdir()
    assert forked(draw, root)[0] == 0
    shutil.copytree(root / "day1", root / "day3")
    for photo in (root / "day2").iterdir():  # other cracks under the names of the first day
        shutil.copy(photo, root / "day3" / photo.name.replace("2-", "1-"))
    for day in (1, 3):
        survey = root / f"survey{day}"
        assert damcrack(root, ("inspect", f"day{day}", "--model", "model.onnx", "--out", survey.name))[0] == 0
        decided = [surveys.decide(known, one, "accepted") for known, one in surveys.all_findings(survey)]
        surveys.write_decisions(survey / "decisions.json", decided)


def set_up(root: Path, template: Path, before: tuple[tuple[str, ...], ...]) -> None:
    shutil.copytree(template, root)
    for command in before:
        if command == ("foreign",):
            for name, content in NOTES.items():
                (root / "out" / name).parent.mkdir(parents=True, exist_ok=True)
                (root / "out" / name).write_bytes(content)
        else:
            assert damcrack(root, command)[0] == 0
            (root / "out/notes.docx").write_bytes(NOTES["notes.docx"])


def is_whole(out: Path) -> bool:
    """Whether our own readers take it for a finished output."""
    if (out / "compare.json").exists() or (out / "decisions.json").exists():
        return True
    try:
        return bool(survey_folders(out))
    except InputError:
        return False


def check_left(left: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes], whole: bool) -> str:
    """After the kill: nothing foreign is touched; what is there belongs to one call; whole is what is finished."""
    inputs = [name for name in before if not name.startswith("out/")]
    assert all(left[name] == before[name] for name in inputs), "an input was changed"
    notes = [content for name, content in left.items() if name.endswith(("notes.docx", "mine.txt"))]
    assert len(notes) == sum(name.endswith(("notes.docx", "mine.txt")) for name in before), "notes are lost"
    ours = {name: content for name, content in left.items() if is_table(name)}
    of_old = [name for name in ours if ours[name] != after.get(name)]
    of_new = [name for name in ours if ours[name] != before.get(name)]
    assert not (of_old and of_new), f"{of_old[0]} of one call lies next to {of_new[0]} of another"
    if whole:
        same = {name: content for name, content in left.items() if is_table(name)}
        complete = [{n: c for n, c in one.items() if is_table(n)} for one in (before, after)]
        assert same in complete, "half is taken for whole"
    return "finished" if whole else "unfinished"


def is_table(name: str) -> bool:
    """Tables and pages; notes may wait in the folder that was replaced until the next call."""
    *folders, last = name.split("/")
    return folders == ["out"] and last[0] != "." and last not in ("notes.docx", "mine.txt")


def main_trials(num: int, seed: int, folder: Path) -> dict[str, dict[str, int]]:
    rng, counts = random.Random(seed), dict[str, Counter[str]]()
    prepare(folder / "template")
    references: dict[str, tuple[dict[str, bytes], dict[str, bytes], float, int, int]] = {}
    for number in range(num):
        name = list(SITUATIONS)[number % len(SITUATIONS)]
        earlier, command = SITUATIONS[name]
        if name not in references:
            root = folder / "reference"
            set_up(root, folder / "template", earlier)
            before = tree(root)
            status, seconds = damcrack(root, command)
            assert status == (1 if "foreign" in name else 0), name
            changes = int((folder / "changes.txt").read_text())
            references[name] = before, tree(root), seconds, status, changes
            shutil.rmtree(root)
        before, after, seconds, status, changes = references[name]
        root = folder / "trial"
        set_up(root, folder / "template", earlier)
        kill = (
            {"kill_after_s": rng.uniform(0.0, seconds)}
            if number % 2
            else {"kill_at": rng.randint(1, max(1, changes))}
        )
        ended = damcrack(root, command, **kill)[0]
        outcome = check_left(tree(root), before, after, is_whole(root / "out"))
        again = damcrack(root, command)[0]
        assert again == status, f"{name}, {kill}: the next call ended with {again}"
        last = tree(root)
        different = sorted(n for n in last.keys() | after.keys() if last.get(n) != after.get(n))
        assert not different, f"{name}, {kill}: {different[:3]} is not as without the kill"
        shutil.rmtree(root)
        counts.setdefault(name, Counter())[f"{'killed' if ended == -9 else 'ended before'}, {outcome}"] += 1
    return {name: dict(one) for name, one in counts.items()}


if __name__ == "__main__":
    print(json.dumps(main_trials(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])), indent=1))
