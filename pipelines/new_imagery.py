"""The recurring run: take in what arrived, inspect it with the champion, train when enough of it was labelled.

    take-in ──┬─ batches without report ──► inspect-new
              └─ enough new labels ──► snapshot-new ──► training graph and gate ──► note-trained

A run that finds nothing new is the first task alone. A training does not hold up the next polls: the schedule may have
two runs at once, because what they share is claimed, and the second one never starts another training.
"""

from collections.abc import Callable
from typing import Any

from components import new_imagery as tasks
from kfp import dsl, kubernetes

# Names in infra/kubernetes; on a cluster that gives pods a role there are no S3 keys, so nothing has to be there.
SETTINGS = {"damcrack-services": ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "MLFLOW_TRACKING_URI")}
SECRETS = {
    "damcrack-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "damcrack-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}
TRIES = 2  # after a pod was lost, or S3 was away for longer than the tasks themselves wait

Train = Callable[[Any, Any], Any]
"""Make the task that trains: from the snapshot's address and the text of params.yaml; in a pipeline being built."""


def new_imagery_pipeline(image: str, train: Train) -> Any:
    """The pipeline for one image; `train` makes the training's task inside it.

    Its parameters are texts: imagery.yaml and params.yaml, checked before they are sent, and the model to inspect with.
    """

    def settled(task: Any) -> Any:
        for name, keys in SETTINGS.items():
            kubernetes.use_config_map_as_env(task, name, {key: key for key in keys}, optional=True)
        for name, keys in SECRETS.items():
            kubernetes.use_secret_as_env(task, name, {key: key for key in keys}, optional=True)
        task.set_cpu_request("1").set_memory_request("1Gi").set_memory_limit("4Gi")
        return task.set_container_image(image).set_caching_options(False).set_retry(TRIES, "60s", 2.0)

    @dsl.pipeline(
        name="damcrack-new-imagery", description="New photos in once, inspected, trained on when labelled."
    )
    def new_imagery(
        imagery_yaml: str, params_yaml: str, model: str = "models:/dam-crack-detector@champion"
    ) -> None:
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        taken = settled(tasks.take_in(imagery_yaml=imagery_yaml, image=image, run_id=run_id))
        with dsl.If(taken.output >= tasks.INSPECT, name="batches without report"):
            inspected = tasks.inspect_new(
                imagery_yaml=imagery_yaml, model=model, params_yaml=params_yaml, run_id=run_id
            )
            settled(inspected)
        with dsl.If(taken.output >= tasks.TRAIN, name="enough new labels"):
            snapshot = settled(tasks.snapshot_new(imagery_yaml=imagery_yaml)).output
            trained = train(snapshot, params_yaml)
            settled(tasks.note_trained(imagery_yaml=imagery_yaml, snapshot=snapshot)).after(trained)

    return new_imagery
