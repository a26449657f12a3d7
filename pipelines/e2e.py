"""`make e2e`: the training pipeline as containers of our images against a real S3 and MLflow server, and proofs.

Prints, with numbers: a first run, a second run that restores everything, a run with a container killed in the
middle of a training and its repetition, and a fresh clone that pulls bitwise what a local `dvc repro` makes.
The S3 service is that of AWS_ENDPOINT_URL and AWS_*; MLflow is started here, its artifacts in the same bucket.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from damcrack.edges.storage import check_reachable, make_bucket
from damcrack.errors import InputError
from damcrack.outputs import sha256_file
from pipelines.local import LocalRun, run_as_containers
from pipelines.training import Setting

KILLED = "pretrain@resnet50"
SERVER_STARTS_S = 120


def small_values(checkout: Path) -> str:
    """The demo values, so small that all stages together take a minute or two on one core."""
    params = yaml.safe_load((checkout / "params/demo.yaml").read_text())
    params["photos"] |= {"sample_photos": 8, "sample_size_hw": [448, 672]}
    params["miniimagenet"] |= {"sample_classes": 3, "sample_per_class": 10, "image_px": 32}
    for section in ("pretrain", "distill", "finetune"):
        params[section]["common"] |= {"epochs": 1, "batch_size": 8}
    params["tile"] |= {"tile_px": 224, "tiles_per_class": None}
    params["finetune"]["common"] |= {"image_px": 32}
    params["pretrain"]["items"] = {"resnet50": {"network": "resnet50", "epochs": 3}}
    params["distill"]["items"] = {"dynamic": params["distill"]["items"]["dynamic"]}
    params["finetune"] |= {"pretrained": {}, "distilled": {"resnet18-dynamic": {"init": "dynamic"}}}
    params["export"] |= {"experiment": "resnet18-dynamic", "parity_tiles": 8, "calibration_tiles": 8}
    params["register"]["min_accuracy"] = 0.0
    return yaml.safe_dump(params, sort_keys=False)


def main() -> None:
    """Run all proofs; end with an error at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--remote", required=True, help="s3://bucket/prefix to work under; it is not emptied")
    parser.add_argument("--tag", default="dev", help="tag of damcrack-cpu and damcrack-train")
    parser.add_argument("--port", type=int, default=5300, help="where MLflow listens on loopback")
    parser.add_argument("--docker", default=shutil.which("docker"), help="the docker client")
    given = parser.parse_args()
    try:
        prove(given)
    except InputError as error:
        sys.exit(f"e2e: error: {error}")


def prove(given: argparse.Namespace) -> None:
    """The proofs one after the other."""
    if not given.remote.startswith("s3://"):
        raise InputError(f"REMOTE={given.remote!r}: expected s3://bucket/prefix")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    make_bucket(given.remote)
    check_reachable(given.remote)
    checkout = Path.cwd()
    base = f"{given.remote.rstrip('/')}/{time.strftime('%Y%m%dT%H%M%S')}"
    with (
        tempfile.TemporaryDirectory(prefix="damcrack-e2e-") as temporary,
        _mlflow(Path(temporary), base, given.port),
    ):
        folder = Path(temporary)
        images = {kind: f"damcrack-{kind}:{given.tag}" for kind in ("cpu", "train")}
        setting = Setting(checkout, small_values(checkout), f"{base}/dvc", images, revision=_revision())
        first, first_s = _timed(setting, folder / "run")
        lock = folder / "dvc.lock"
        shutil.copy(first.lock, lock)
        second, second_s = _timed(setting, folder / "run")
        _say(f"first run: {first.num_run} stages ran in {first_s:.0f} s")
        _say(
            f"second run: {second.num_run} of {len(second.restored)} stages ran in {second_s:.0f} s "
            f"({', '.join(name for name, was in second.restored.items() if not was)}); "
            f"time ratio {first_s / second_s:.1f}"
        )
        _same("lock of the second run", second.lock, lock)
        _clone_pulls_what_repro_makes(folder, lock, setting)
        _killed_and_repeated(
            folder,
            lock,
            Setting(checkout, setting.params, f"{base}/killed", images, setting.revision),
            given.docker,
        )


def _timed(setting: Setting, root: Path) -> tuple[LocalRun, float]:
    started = time.monotonic()
    run = run_as_containers(setting, root)
    return run, time.monotonic() - started


def _clone_pulls_what_repro_makes(folder: Path, lock: Path, setting: Setting) -> None:
    """Bitwise the same models: pulled by the run's lock, and made here with no remote and no cache."""
    pulled, made = (_clone(folder / name, setting) for name in ("pulled", "made"))
    shutil.copy(lock, pulled / "dvc.lock")
    _dvc(pulled, "remote", "add", "--quiet", "--default", "store", setting.remote)
    _dvc(pulled, "pull", "--quiet")
    _dvc(made, "repro", "--quiet")
    ours, theirs = (_digests(clone) for clone in (made, pulled))
    differ = sorted(name for name in ours if ours[name] != theirs.get(name))
    if differ or not ours:
        raise InputError(f"pulled and locally made outputs differ in {', '.join(differ) or 'all'}")
    models = sum(name.endswith("weights.safetensors") for name in ours)
    _say(
        f"fresh clone + dvc pull = local dvc repro: {len(ours)} files bitwise equal, {models} models among them"
    )
    _same("lock of the local dvc repro", made / "dvc.lock", lock)


def _clone(target: Path, setting: Setting) -> Path:
    subprocess.run(["git", "clone", "--quiet", str(setting.checkout), str(target)], check=True)
    (target / "params.yaml").write_text(setting.params)
    (target / "dvc.lock").unlink(missing_ok=True)
    return target


def _dvc(folder: Path, *arguments: str) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, check=True)


def _digests(clone: Path) -> dict[str, str]:
    files = (path for top in ("data", "models", "results") for path in (clone / top).rglob("*"))
    return {
        str(path.relative_to(clone)): sha256_file(path)
        for path in files
        if path.is_file() and not path.name.startswith(".")
    }


def _killed_and_repeated(folder: Path, lock: Path, setting: Setting, docker: str) -> None:
    """Kill a container while its stage trains; the repetition ends with the lock of the undisturbed run."""
    killer = threading.Thread(target=_kill_when_training, args=(docker,), daemon=True)
    killer.start()
    try:
        run_as_containers(setting, folder / "killed")
    except Exception as error:  # kfp's local runner raises what it likes when a task fails
        _say(f"killed a container of {KILLED} in the middle: the run ended ({type(error).__name__})")
    else:
        raise InputError("the run with the killed container ended well, which it must not")
    again, seconds = _timed(setting, folder / "killed")
    _say(
        f"run again: {again.num_run} stages ran in {seconds:.0f} s, {sum(again.restored.values())} were restored"
    )
    _same("lock after the killed container", again.lock, lock)


def _kill_when_training(docker: str) -> None:
    while True:
        listed = subprocess.run(
            [docker, "ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}"], capture_output=True, text=True
        )
        for container in (line.split()[0] for line in listed.stdout.splitlines() if KILLED in line):
            logs = subprocess.run([docker, "logs", container], capture_output=True, text=True)
            if "epoch 1/" in logs.stdout + logs.stderr:
                subprocess.run([docker, "kill", container], capture_output=True)
                return
        time.sleep(0.2)


def _same(what: str, lock: Path, other: Path) -> None:
    if yaml.safe_load(lock.read_text()) != yaml.safe_load(other.read_text()):
        raise InputError(f"{what}: {lock} differs from {other}")
    _say(
        f"{what}: equal ({hashlib.sha256(yaml.safe_dump(yaml.safe_load(lock.read_text())).encode()).hexdigest()[:12]})"
    )


@contextmanager
def _mlflow(folder: Path, base: str, port: int) -> Iterator[None]:
    """An MLflow server whose artifacts go to the bucket."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        f"{base}/mlflow",
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.setdefault("MLFLOW_S3_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT_URL", ""))
    with (folder / "mlflow.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, folder / "mlflow.log")
        yield
        _count_runs()
    finally:
        server.terminate()
        server.wait()


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < SERVER_STARTS_S and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.3)
    raise InputError(f"MLflow did not start: {log.read_text()[-500:]}")


def _count_runs() -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("damcrack")
    runs: list[Any] = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
    restored = [run for run in runs if "restored_from" in run.data.tags]
    known = {run.info.run_id for run in runs}
    traced = sum(run.data.tags["restored_from"] in known for run in restored)
    _say(
        f"MLflow: {len(runs)} runs, {len(restored)} of them tagged restored_from, {traced} name the run that made it"
    )


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _say(line: str) -> None:
    print(f"e2e: {line}", flush=True)


if __name__ == "__main__":
    main()
