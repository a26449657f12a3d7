"""`damcrack pipeline`: the graph of dvc.yaml on Kubeflow Pipelines."""

import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from damcrack.cli.options import PARAMS, PATH, Sections
from damcrack.files import InputError, check_output_file
from damcrack.kubeflow import cluster
from damcrack.kubeflow.runs import cron_of, in_words, lateness, nodes_of, stages_of

COMPILED = Path(".damcrack/pipeline.yaml")
BUCKET = re.compile(r"s3://[A-Za-z0-9][\w.-]*(/.*)?")
FIXES = {
    **dict.fromkeys((401, 403), "check DAMCRACK_KFP_TOKEN"),
    404: "check --host, and the id if you gave one",
}
SETTING = (
    click.Option(["--remote"], help="DVC remote that all tasks share: s3://bucket/prefix."),
    click.Option(["--cpu-image"], required=True, help="Image without torch, by digest: NAME@sha256:..."),
    click.Option(["--train-image"], help="Image with torch, by digest."),
    click.Option(["--revision"], help="Commit of the code in the images; default: that of this checkout."),
    click.Option(
        ["--snapshot", "snapshots"],
        multiple=True,
        metavar="STAGE=FILE",
        help="Snapshot of a stage's source: a file, or its s3:// address. Default: those of the image.",
    ),
    click.Option(
        ["--imagery"],
        type=PATH,
        help="imagery.yaml: the pipeline that ingests new photos and trains when enough have come.",
    ),
    click.Option(
        ["--survey"],
        nargs=2,
        metavar="PHOTOS OUT",
        help="Two s3:// prefixes: the pipeline that inspects PHOTOS on many pods, without --remote and --train-image.",
    ),
)
HOST = click.Option(
    ["--host"],
    envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"],
    show_envvar=True,
    help="Address of Kubeflow Pipelines.",
)
NAMESPACE = click.Option(["--namespace"], help="That of your Profile, in a Kubeflow with many users.")
EXPERIMENT = click.Option(
    ["--experiment"], default="damcrack", show_default=True, help="Its experiment there."
)
ACCOUNT = click.Option(
    ["--service-account"], default=cluster.ACCOUNT, show_default=True, help="Account that the pods run as."
)
NAME = click.Option(["--name"], default="training", show_default=True, help="Name of the run or schedule.")
RUN = (*SETTING, HOST, EXPERIMENT, NAMESPACE, ACCOUNT, NAME)


@click.group(cls=Sections)
def pipeline() -> None:
    """Run the graph of dvc.yaml on Kubeflow Pipelines.

    The token of a service that asks for one is read from DAMCRACK_KFP_TOKEN. All else (switch off or delete a
    schedule) is in Kubeflow's pages and in its own command `kfp`.
    """


@pipeline.command(params=[HOST, NAMESPACE, ACCOUNT])
def check(host: str, namespace: str | None, service_account: str) -> None:
    """Look whether Kubeflow and the namespace have what our pods need; prints a command for what is missing.

    Reads the namespace with the rights of the current kubectl context.
    """
    with _client(host, namespace) as client:
        health = _health(client)
        namespace = namespace or client.get_user_namespace() or "kubeflow"
    findings = [cluster.check_version(health)]
    findings += cluster.check_namespace(namespace, service_account, bool(health.get("multi_user")))
    for one in findings:
        click.echo(f"{one.state:9}{one.what}" + (f": {one.fix}" if one.fix else ""))
    missing = [one.what for one in findings if one.state == "missing"]
    if missing:
        raise InputError(f"pods would hang or fail in namespace {namespace}: missing {', '.join(missing)}")


@pipeline.command("compile", params=[*SETTING])
@PARAMS
@click.option("--out", type=PATH, default=Path("training.yaml"), show_default=True, help="File to write.")
def compile_(out: Path, **setting: Any) -> None:
    """Write the pipeline of these values as YAML; the same input gives the same bytes."""
    check_output_file(out, "compiled pipeline", "# PIPELINE DEFINITION")
    out.parent.mkdir(parents=True, exist_ok=True)
    _compile(out, **setting)
    click.echo(f"{out}: {out.stat().st_size} bytes")


@pipeline.command(params=[*RUN])
@PARAMS
def submit(
    name: str, host: str, experiment: str, namespace: str, service_account: str, **setting: Any
) -> None:
    """Check the values, compile and start one run."""
    _compile_for_cluster(**setting)
    with _client(host, namespace) as client:
        run = client.create_run_from_pipeline_package(
            str(COMPILED),
            run_name=name,
            experiment_name=experiment,
            namespace=namespace,
            service_account=service_account,
        )
    click.echo(f"started run {run.run_id} {name!r}")


@pipeline.command(params=[*RUN])
@PARAMS
@click.option(
    "--cron",
    required=True,
    help='Six fields, seconds first: "0 0 3 * * 1" is Mondays at 3, UTC unless Kubeflow says otherwise.',
)
def schedule(
    name: str, cron: str, host: str, experiment: str, namespace: str, service_account: str, **setting: Any
) -> None:
    """Run it again and again, one run at a time.

    An earlier schedule of the same name is switched off, not deleted: that would kill its run in flight.
    """
    if len(cron.split()) != 6:  # Kubeflow takes five without a word, and fires at other times
        raise InputError(f"--cron {cron!r}: expected 6 fields: second minute hour day month weekday")
    _compile_for_cluster(**setting)
    with _client(host, namespace) as client:
        experiment_id = client.create_experiment(experiment, namespace=namespace).experiment_id
        earlier = [one for one in _schedules(client, experiment_id) if one.display_name == name]
        created = client.create_recurring_run(
            experiment_id,
            name,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            pipeline_package_path=str(COMPILED),
            service_account=service_account,
        )
        for one in earlier:
            client.disable_recurring_run(one.recurring_run_id)
    click.echo(
        f"schedule {created.recurring_run_id}: {name!r} at {cron!r}; {len(earlier)} earlier switched off"
    )


@pipeline.command(params=[HOST, EXPERIMENT, NAMESPACE])
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="Number of runs.")
def status(host: str, experiment: str, namespace: str, limit: int) -> None:
    """Show the schedules and the latest runs, with the stages of those that are not through."""
    with _client(host, namespace) as client:
        experiment_id = _experiment_id(client, experiment, namespace)
        if experiment_id is None:
            click.echo(f"nothing was submitted to experiment {experiment!r} yet")
            return
        for one in _schedules(client, experiment_id):
            click.echo(f"schedule  {one.display_name}  {cron_of(one)}  {one.mode}{lateness(client, one)}")
        runs = client.list_runs(page_size=limit, sort_by="created_at desc", experiment_id=experiment_id)
        for run in runs.runs or []:
            state = run.state or "PENDING"  # left out while Argo has not begun
            stages = "" if state in ("SUCCEEDED", "PENDING") else f"  {_stages(client, run)}"
            click.echo(f"run       {run.display_name}  {state}  {run.created_at}  {run.run_id}{stages}")


@pipeline.command(params=[HOST, NAMESPACE])
@click.argument("run_id", metavar="RUN")
def stop(host: str, namespace: str | None, run_id: str) -> None:
    """Stop a run in flight, by the id that `status` shows; what its stages finished stays in the remote."""
    with _client(host, namespace) as client:
        client.terminate_run(run_id)
    click.echo(f"run {run_id} is being stopped")


def _experiment_id(client: Any, name: str, namespace: str | None) -> str | None:
    """None where it does not exist; kfp's client says so by a ValueError."""
    try:
        return str(client.get_experiment(experiment_name=name, namespace=namespace).experiment_id)
    except ValueError:
        return None


@contextmanager
def _client(host: str | None, namespace: str | None) -> Iterator[Any]:
    """Kubeflow's own client; its errors become one sentence, which holds no header of ours."""
    from kfp.client import Client
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    class _OneTry(Client):  # type: ignore[misc]
        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            """In place of five tries, each with a trace, after which a refusal is called a timeout."""
            return SimpleNamespace(multi_user=_health(self).get("multi_user"))

    if not host:
        raise InputError("no Kubeflow Pipelines service: give --host or set KFP_ENDPOINT")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = _OneTry(host=host, existing_token=os.environ.get("DAMCRACK_KFP_TOKEN"))
        health = _health(client)
        if not namespace and not client.get_user_namespace() and health.get("multi_user"):
            raise InputError(f"Kubeflow at {host} has many users: give the --namespace of your Profile")
        yield client
    except ApiException as error:
        answer = f"{error.status} {error.reason} {_said(error.body)}"[:400]
        fix = FIXES.get(error.status, "the log of its deployment ml-pipeline says more")
        if "unmarshal" in answer:  # a field that it does not know
            fix = "it is too old: 2.16 or later is needed, 2.17 with --imagery"
        raise InputError(f"Kubeflow Pipelines at {host} answered {answer}; {fix}") from None
    except BrokenPipeError:  # of whoever reads our output: `damcrack pipeline status | head -1`
        raise
    except (HTTPError, OSError) as error:
        raise InputError(
            f"Kubeflow Pipelines at {host} cannot be reached ({type(error).__name__}); check --host"
        ) from None


def _said(body: Any) -> str:
    """The message of the service's JSON, or the body of a proxy before it."""
    try:
        return str(json.loads(body)["message"]).split("\n")[0]  # then comes a trace of its Go code
    except (ValueError, KeyError, TypeError):
        return " ".join(str(body).split())


def _health(client: Any) -> dict[str, Any]:
    """Version and mode; kfp's client would drop the version, and take a login page for an empty answer.

    Raises:
        InputError: something else answers.
    """
    answer = client._healthz_api.healthz_service_get_healthz(_preload_content=False)
    try:
        health = json.loads(answer.data)
    except ValueError:
        health = None
    if not isinstance(health, dict) or not health.keys() & {"multi_user", "tag_name", "commit_sha"}:
        raise InputError(
            "at this address is a login page or another service, expected Kubeflow Pipelines; "
            "check --host and DAMCRACK_KFP_TOKEN"
        )
    return health


def _stages(client: Any, run: Any) -> str:
    """The stages of a run, from Argo's record of it.

    Kubeflow's own list of tasks gives no reasons, and stays as it was once Argo compresses its record, above 1 MB.
    Empty where Kubeflow hands out that record no more: its older API is to go.
    """
    from kfp_server_api.exceptions import ApiException

    try:
        answer = client._run_api.api_client.call_api(
            f"/apis/v1beta1/runs/{run.run_id}", "GET", auth_settings=["Bearer"],
            _return_http_data_only=True, _preload_content=False,
        )  # fmt: skip
    except ApiException as error:
        if error.status not in (404, 501):
            raise
        return ""
    record = json.loads(answer.data).get("pipeline_runtime") or {}
    return in_words(stages_of(run.pipeline_spec or {}, nodes_of(record.get("workflow_manifest", ""))))


def _schedules(client: Any, experiment_id: str) -> list[Any]:
    page = client.list_recurring_runs(page_size=100, sort_by="created_at desc", experiment_id=experiment_id)
    return page.recurring_runs or []


def _compile_for_cluster(cpu_image: str, train_image: str | None, **setting: Any) -> None:
    for image in (cpu_image, train_image):
        if image is not None and not re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image):
            raise InputError(
                f"image {image!r}: expected NAME@sha256:...; a tag can come to mean another image"
            )
    COMPILED.parent.mkdir(exist_ok=True)
    _compile(COMPILED, cpu_image=cpu_image, train_image=train_image, **setting)


def _compile(
    out: Path,
    params_path: Path,
    remote: str | None,
    cpu_image: str,
    train_image: str | None,
    revision: str | None,
    snapshots: tuple[str, ...],
    imagery: Path | None,
    survey: tuple[str, str] | None,
) -> None:
    from damcrack.kubeflow.graph import check_graph, derive
    from damcrack.kubeflow.new_imagery import new_imagery
    from damcrack.kubeflow.pipeline import Setting, compile_pipeline, training
    from damcrack.kubeflow.survey import survey as survey_in_parts
    from damcrack.params import check_params, read_params
    from damcrack.stage_table import STAGES

    params = read_params(params_path)
    configs = check_params(params, list(STAGES))
    for image in (cpu_image, train_image):
        if image is not None and not re.fullmatch(r"\S+", image):
            raise InputError(f"image {image!r}: expected its address, without spaces")
    if survey is not None:
        if imagery is not None:
            raise click.UsageError("--survey and --imagery are two pipelines; give one of them")
        if not all(BUCKET.fullmatch(place) for place in survey):
            raise InputError(
                f"--survey {' '.join(survey)}: expected two s3://bucket/prefix; pods share no disk"
            )
        compile_pipeline(survey_in_parts(cpu_image, params, *survey), out)
        return
    if remote is None or train_image is None:
        raise click.UsageError("the training needs --remote and --train-image")
    _check_shared("--remote", remote)
    if revision is not None and not re.fullmatch("[0-9a-f]{1,40}", revision):
        raise InputError(
            f"--revision {revision!r}: expected the hash of a commit, as `git rev-parse HEAD` prints it"
        )
    texts, images = dict(map(_snapshot, snapshots)), {"cpu": cpu_image, "train": train_image}
    values = params_path.read_text(encoding="utf-8")
    check_graph(derive(Path.cwd(), values), configs)
    setting = Setting(Path.cwd(), values, remote, images, revision or _revision(), texts)
    if imagery is None:
        compile_pipeline(training(setting), out)
        return
    from damcrack.imagery.calls import check_source, read_config

    config = read_config(imagery)
    for place in (config.incoming, config.store):
        _check_shared(str(imagery), place)
    check_source(config, params)
    compile_pipeline(new_imagery(setting, imagery.read_text(encoding="utf-8")), out)


def _check_shared(where: str, place: str) -> None:
    """Refuse a place that pods cannot share: a relative folder, or no bucket."""
    if not BUCKET.fullmatch(place) and not Path(place).is_absolute():
        raise InputError(f"{where} {place!r}: expected s3://bucket/prefix; pods share no disk")


def _snapshot(setting: str) -> tuple[str, str]:
    from damcrack.data.snapshot import COLUMNS

    stage, equals, file = setting.partition("=")
    if not (stage and equals and file):
        raise InputError(
            f"--snapshot {setting}: expected STAGE=FILE, for example photos=snapshots/photos.csv"
        )
    if file.startswith("s3://"):
        return stage, file
    text = Path(file).read_bytes().decode(errors="replace")
    if text.splitlines()[:1] != [",".join(COLUMNS)]:
        raise InputError(
            f"--snapshot {setting}: {file} is not a snapshot; `damcrack snapshot {stage}` writes one"
        )
    return stage, text


def _revision() -> str:
    from damcrack.tracking.recorded import git

    if revision := git("rev-parse", "HEAD"):
        return revision
    raise InputError("this is no git checkout; name the commit of the code in the images with --revision")
