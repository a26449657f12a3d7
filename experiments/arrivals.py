"""Two runs take in the same photos at once, one may be killed: every photo once, every bad one aside, none lost.

    python -m experiments.arrivals --place s3://bucket/prefix --objects 500
    python -m experiments.arrivals --place /tmp/somewhere --objects 60 --kill --model detector.onnx

What has to come out is known from how the objects are made and is counted from what lies in the store, with nothing
of the code under test in between. Prints the counts as json and ends with an error if one is wrong.
"""

import hashlib
import io
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import yaml
from PIL import Image

from damcrack.storage.source import open_store

DUPLICATES, CORRUPT = 0.20, 0.05
RUN = "from damcrack.cli.main import main; main()"
FOLDERS = ("spillway", "spillway/images", "left abutment/2026-05", "Krone Süd", "../outside", "a//b", ".")


def photo(seed: int, side_px: int = 256) -> bytes:
    """A JPEG of bright noise that is like no other."""
    rng = np.random.default_rng(seed)
    grey = rng.normal(150, 8, (side_px, side_px, 1)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(file, "JPEG", quality=90)
    return file.getvalue()


def broken(seed: int) -> bytes:
    """A file that is no usable photo, of four kinds."""
    whole = photo(seed)
    kinds = (whole[: len(whole) // 2], f"not a photo {seed}".encode(), photo(seed, 100), whole[40:])
    return kinds[seed % len(kinds)]


def deliveries(num: int) -> tuple[dict[str, bytes], set[str], set[str]]:
    """Object name -> content, and the hashes of good and bad contents; copies bear other names."""
    draw = random.Random(0)
    num_copies, num_bad = round(num * DUPLICATES), round(num * CORRUPT)
    bad = [broken(1_000_000 + number) for number in range(num_bad)]
    good = [photo(number) for number in range(num - num_copies - num_bad)]
    contents = good + bad
    contents += draw.choices(good, k=num_copies - num_copies // 10) + draw.choices(bad, k=num_copies // 10)
    draw.shuffle(contents)
    objects = {f"{FOLDERS[i % len(FOLDERS)]}/IMG {i:05d}.JPG": content for i, content in enumerate(contents)}
    assert len(objects) == num
    return objects, {sha256(one) for one in good}, {sha256(one) for one in bad}


def sha256(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()


def start(config: Path, *command: str) -> "subprocess.Popen[str]":
    """One run as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *command, "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*runs: "subprocess.Popen[str]") -> list[str]:
    """Wait; show what a failed one said."""
    said = [run.communicate()[0] for run in runs]
    for run, words in zip(runs, said, strict=True):
        if run.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"a run ended with {run.returncode}:\n{words}")
    return said


def count(store_uri: str, good: set[str], bad: set[str]) -> dict[str, int]:
    """What lies in the store, against what should."""
    store = open_store(store_uri)
    names = [one.name for one in store.listed()]
    inside = {top: [n for n in names if n.startswith(top + "/")] for top in ("ledger", "claims", "catalogue")}
    accepted = [name for name in names if name.startswith("accepted/photos/")]
    aside = {name.split("/")[1] for name in names if name.startswith("quarantine/")}
    reasons = [json.loads(store.read(f"quarantine/{key}/reason.json"))["reason"] for key in aside]
    rows = store.read(max(inside["catalogue"])).decode().splitlines()[1:]
    listed = Counter(key for row in rows for key in good | bad if f",{key}," in row)
    claims = Counter(
        name.split("/")[1].split(".")[0] for name in inside["claims"] if "inspection" not in name
    )
    inspected = Counter(
        key
        for name in names
        if name.startswith("inspected/")
        for key in json.loads(store.read(name))["photos"]
    )
    held = {sha256(store.read(name)) for name in accepted}
    return {
        "entries in the ledger": len(inside["ledger"]),
        "good photos accepted": len(held & good),
        "good photos lost": len(good - held),
        "accepted that are not good": len(accepted) - len(held & good),
        "bad photos set aside with a reason": len(aside & bad),
        "reasons that say nothing": sum(len(reason) < 20 for reason in reasons),
        "set aside that are not bad": len(aside - bad),
        "listed once in the catalogue": sum(number == 1 for number in listed.values()),
        "listed more than once or lost": len(rows) - sum(number == 1 for number in listed.values()),
        "processed once": sum(number == 1 for number in claims.values()),
        "processed again after a kill": sum(number > 1 for number in claims.values()),
        "good photos inspected once": sum(inspected[key] == 1 for key in good),
        "inspected more than once": sum(number > 1 for number in inspected.values()),
    }


def expected(num_good: int, num_bad: int, inspects: bool) -> dict[str, int]:
    """What the counts have to be where nothing was killed."""
    every = num_good + num_bad
    wanted = {"entries in the ledger": every, "good photos accepted": num_good, "processed once": every}
    wanted |= {"bad photos set aside with a reason": num_bad, "listed once in the catalogue": every}
    return wanted | {"good photos inspected once": num_good if inspects else 0}


@click.command()
@click.option("--place", required=True, help="Empty folder or s3://bucket/prefix.")
@click.option("--objects", default=500, show_default=True)
@click.option("--kill", is_flag=True, help="Kill one of the two in its midst; a third one finishes its work.")
@click.option("--model", help="Inspect with this detector too, two runs at once.")
def main(place: str, objects: int, kill: bool, model: str | None) -> None:
    """Fill, run two at once, count."""
    sent, good, bad = deliveries(objects)
    incoming, store = f"{place.rstrip('/')}/incoming", f"{place.rstrip('/')}/store"
    if "://" not in place:
        Path(incoming).mkdir(parents=True)
        sent = {f"{i % 7}/{Path(name).name}": sent[name] for i, name in enumerate(sent)}
    source = open_store(incoming)
    for name, content in sent.items():
        source.create(name, content)
    lease = 0.05 if kill else 10
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "imagery.yaml"
        config.write_text(
            yaml.safe_dump({"incoming": incoming, "store": store, "photo_lease_minutes": lease})
        )
        seconds = take_in(config, store, kill, lease)
        if model:
            finish(*(start(config, "imagery", "inspect", "--model", model) for _ in range(2)))
        began = time.monotonic()
        outcome = Path(folder) / "outcome.json"
        finish(start(config, "imagery", "take-in", "--outcome", str(outcome)))
        seconds["poll with nothing new, process included"] = time.monotonic() - began
        quiet = json.loads(outcome.read_text())
    found = count(store, good, bad)
    click.echo(json.dumps({"objects": len(sent), "contents": len(good) + len(bad), **found}, indent=1))
    click.echo(json.dumps({name: round(value, 1) for name, value in seconds.items()}, indent=1), err=True)
    if {name: number for name, number in quiet.items() if "photos" in name} != {"photos known": len(sent)}:
        raise SystemExit(f"the last run should have known all {len(sent)} objects: {quiet}")
    wanted = dict.fromkeys(found, 0) | expected(len(good), len(bad), bool(model))
    if kill:
        again = found["processed again after a kill"]
        wanted |= {"processed again after a kill": again, "processed once": len(good) + len(bad) - again}
    wrong = [
        f"{name}: {found[name]}, expected {wanted[name]}" for name in wanted if found[name] != wanted[name]
    ]
    if wrong:
        raise SystemExit("\n".join(["wrong:", *wrong]))
    click.echo("all as expected", err=True)


def take_in(config: Path, store: str, kill: bool, lease_minutes: float) -> dict[str, float]:
    """Two runs at once; with `kill` one dies once the first photos are in, and a third run follows."""
    began = time.monotonic()
    runs = [start(config, "imagery", "take-in") for _ in range(2)]
    if kill:
        while len(list(open_store(store).listed("ledger/"))) < 5:
            time.sleep(0.05)
        runs[0].kill()
    finish(*runs)
    seconds = {"two runs at once": time.monotonic() - began}
    if kill:
        time.sleep(lease_minutes * 60)
        finish(start(config, "imagery", "take-in"))
    return seconds


if __name__ == "__main__":
    main()
