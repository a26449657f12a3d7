"""`make e2e`: the training pipeline as containers of our images against a real S3 and MLflow server, and proofs.

Prints, with numbers: a first run, a second run that restores everything, a fresh clone that pulls bitwise what a
local `dvc repro` makes, a container that is killed in the middle of a training and its repetition, and that no
secret is in anything that was printed or left: logs, artifacts, lock parts, compiled pipeline, MLflow's database.
The S3 service is that of AWS_ENDPOINT_URL and AWS_*; MLflow is started here, its artifacts in the same bucket.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from damcrack.files import InputError, sha256_file
from damcrack.kubeflow.derive import Node, derive
from damcrack.kubeflow.lock_parts import merge, read_lock
from damcrack.storage.source import check_reachable, make_bucket
from damcrack.tracking.store import RESTORED_FROM
from pipelines.local import HANDED_ON, LocalRun, run_as_containers
from pipelines.smallest import one_chain, smallest
from pipelines.training import Setting, compile_training

SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD")
KILLED = "pretrain@resnet50"
SERVER_STARTS_S = 120


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
        _recorded(Path(temporary) / "printed.log"),
        _mlflow(Path(temporary), base, given.port),
    ):
        folder = Path(temporary)
        images = {kind: f"damcrack-{kind}:{given.tag}" for kind in ("cpu", "train")}
        params = one_chain(smallest(checkout), {"network": "resnet50", "epochs": 3})
        setting = Setting(checkout, yaml.safe_dump(params), f"{base}/dvc", images, revision=_revision())
        first, first_s = _timed(setting, folder / "first")
        lock = folder / "dvc.lock"
        shutil.copy(first.lock, lock)
        second, second_s = _timed(setting, folder / "second")
        _say(f"first run: {first.num_run} stages ran in {first_s:.0f} s")
        ran_again = [name for name, was in second.restored.items() if not was]
        if ran_again:
            raise InputError(f"the second run ran {', '.join(ran_again)}; all should have been restored")
        _say(
            f"second run: none of {len(second.restored)} stages ran, {second_s:.0f} s; "
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
        compile_training(setting, folder / "pipeline.yaml")
        _no_secret_in(folder)


def _timed(setting: Setting, root: Path) -> tuple[LocalRun, float]:
    started = time.monotonic()
    run = run_as_containers(setting, root)
    return run, time.monotonic() - started


def _clone_pulls_what_repro_makes(folder: Path, lock: Path, setting: Setting) -> None:
    """Bitwise the same models: pulled by the run's lock, and made here with no remote and no cache."""
    pulled, made = (_clone(folder / name, setting) for name in ("pulled", "made"))
    shutil.copy(lock, pulled / "dvc.lock")
    _dvc(pulled, "remote", "add", "--quiet", "--default", "store", setting.remote)
    _dvc(pulled, "pull", "--quiet", "dvc.yaml")  # not the cells of experiments/
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
    """Kill a container while its stage trains; the repetition ends with the entry of the undisturbed run's lock.

    A new remote, so that nothing can be restored; only the stage and what it needs run.
    """
    shared = folder / "parts"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "params.yaml").write_text(setting.params)
    nodes = {node.name: node for node in derive(setting.checkout, setting.params)}
    for parent in nodes[KILLED].parents:  # these have none themselves
        _task_container(docker, setting, shared, nodes[parent])
    status = _kill_when_training(docker, setting, shared, nodes[KILLED])
    _say(f"{KILLED}: killed after its first epoch, exit status {status}")
    if (shared / KILLED).exists():
        raise InputError(f"the killed container of {KILLED} left a lock part, which it must not")
    _task_container(docker, setting, shared, nodes[KILLED])
    again = merge([(shared / KILLED).read_text().strip()])[KILLED]
    if again != read_lock(lock)[KILLED]:
        raise InputError(f"{KILLED}: the repeated run's lock entry differs from the undisturbed run's")
    _say(f"{KILLED}: run again, its lock entry equals that of the undisturbed run")


def _container(docker: str, setting: Setting, shared: Path, node: Node) -> list[str]:
    """The command of one task as a container, hardened as `local.run_as_containers` does."""
    command = [
        docker,
        "run",
        "--rm",
        "--read-only",
        "--network",
        "host",
        "--cap-drop",
        "ALL",
        "--tmpfs",
        "/tmp:mode=1777,exec",
    ]
    command += ["--name", "damcrack-e2e", "--volume", f"{shared}:{shared}"]
    for name in sorted(os.environ):
        command += (
            ["--env", name] if name.startswith(HANDED_ON) else []
        )  # by name: no secret on the command line
    command += [
        setting.images[node.needs.image],
        "damcrack",
        "task",
        node.name,
        "--params",
        f"{shared}/params.yaml",
    ]
    command += ["--remote", setting.remote, "--out", f"{shared}/{node.name}"]
    return command + [word for parent in node.parents for word in ("--part", f"{shared}/{parent}")]


def _task_container(docker: str, setting: Setting, shared: Path, node: Node) -> None:
    if subprocess.run(_container(docker, setting, shared, node)).returncode:
        raise InputError(f"the container of {node.name} failed; what it said stands above")


def _kill_when_training(docker: str, setting: Setting, shared: Path, node: Node) -> int:
    """Start the task, kill its container once the first epoch is over; its exit status."""
    command = _container(docker, setting, shared, node)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("epoch 1/"):
                subprocess.run([docker, "kill", "damcrack-e2e"], check=True, capture_output=True)
        return running.wait()


@contextmanager
def _recorded(log: Path) -> Iterator[None]:
    """Keep a copy of all that this process, its children and its containers print."""
    printer, before = subprocess.Popen(["tee", str(log)], stdin=subprocess.PIPE), [os.dup(1), os.dup(2)]
    assert printer.stdin is not None
    for number in (1, 2):
        os.dup2(printer.stdin.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, was in zip((1, 2), before, strict=True):
            os.dup2(was, number)
            os.close(was)
        printer.communicate()


def _no_secret_in(folder: Path) -> None:
    secrets = [os.environ[name].encode() for name in SECRETS if os.environ.get(name)]
    if not secrets:
        raise InputError(f"none of {', '.join(SECRETS)} is set, so nothing can be looked for")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    told = [str(path.relative_to(folder)) for path in files if _holds(path, secrets)]
    if told:
        raise InputError(f"a secret stands in {', '.join(told[:5])}")
    _say(f"secrets: in none of {len(files)} files (printed output, pipeline, artifacts, MLflow's database)")


def _holds(path: Path, secrets: Sequence[bytes]) -> bool:
    content = path.read_bytes()
    return any(secret in content for secret in secrets)


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
    restored = [run for run in runs if RESTORED_FROM in run.data.tags]
    known = {run.info.run_id for run in runs}
    traced = sum(run.data.tags[RESTORED_FROM] in known for run in restored)
    _say(
        f"MLflow: {len(runs)} runs, {len(restored)} of them tagged {RESTORED_FROM}, {traced} name the run that made it"
    )


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _say(line: str) -> None:
    print(f"e2e: {line}", flush=True)


if __name__ == "__main__":
    main()
