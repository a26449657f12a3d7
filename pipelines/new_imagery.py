"""The recurring run: take in what arrived, inspect it with the champion, train when enough of it was labelled.

    take-in ──┬─ batches without report ──► inspect-new
              └─ enough new labels ──► snapshot-new ──► training graph and gate ──► note-trained

A run that finds nothing new is the first task alone. A training does not hold up the next polls: the schedule may have
two runs at once, because what they share is claimed, and the second one never starts another training.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml
from kfp import dsl, kubernetes

from components import new_imagery as tasks

if TYPE_CHECKING:
    from pipelines.training import Setting

NAME = "damcrack-new-imagery"
# Names in infra/kubernetes; on a cluster that gives pods a role there are no S3 keys, so nothing has to be there.
SETTINGS = {"damcrack-services": ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "MLFLOW_TRACKING_URI")}
SECRETS = {
    "damcrack-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "damcrack-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}
TRIES = 2  # after a pod was lost, or S3 was away for longer than the tasks themselves wait


def new_imagery(setting: "Setting", imagery_yaml: str, train: Callable[..., Any] | None = None) -> Any:
    """The pipeline; its parameters are texts, checked before they are sent.

    `train` makes the training's task of params, remote and snapshots; default: the pipeline of pipelines.training.
    """
    if train is None:
        from pipelines.training import training

        train = training(setting)
    image = setting.images["cpu"]

    @dsl.pipeline(name=NAME, description="New photos in once, inspected, trained on when labelled.")
    def pipeline(
        imagery: str = one_line(imagery_yaml),
        model: str = "models:/dam-crack-detector@champion",
        params: str = one_line(setting.params),
        remote: str = setting.remote,
        snapshots: dict = dict(setting.snapshots),  # type: ignore[type-arg]  # noqa: B006
    ) -> None:
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        taken = _equip(tasks.take_in(imagery_yaml=imagery, image=image, run_id=run_id), image)
        with dsl.If(taken.output >= tasks.INSPECT, name="batches without report"):
            inspected = tasks.inspect_new(imagery_yaml=imagery, model=model, params=params, run_id=run_id)
            _equip(inspected, image)
        with dsl.If(taken.output >= tasks.TRAIN, name="enough new labels"):
            kept = _equip(tasks.snapshot_new(imagery_yaml=imagery, snapshots=snapshots), image)
            trained = train(params=params, remote=remote, snapshots=kept.output)
            noted = tasks.note_trained(imagery_yaml=imagery, snapshots=kept.output)
            _equip(noted, image).after(trained)

    return pipeline


def one_line(text: str) -> str:
    """The same YAML in one line: kfp writes defaults into a comment, where a line break would end it."""
    return json.dumps(yaml.safe_load(text))


def _equip(task: dsl.PipelineTask, image: str) -> dsl.PipelineTask:
    """Image, services and few rights; never answered from Kubeflow's cache, because each looks at the bucket."""
    for name, keys in SETTINGS.items():
        kubernetes.use_config_map_as_env(task, name, {key: key for key in keys}, optional=True)
    for name, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, name, {key: key for key in keys}, optional=True)
    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit="8Gi")
    task.set_cpu_request("1").set_memory_request("1Gi").set_memory_limit("4Gi")
    return task.set_container_image(image).set_caching_options(False).set_retry(TRIES, "60s", 2.0)
