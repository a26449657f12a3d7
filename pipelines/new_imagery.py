"""The recurring run: take in what arrived, inspect it with the champion, train when enough of it was labelled.

    take-in ──┬─ batches without report ──► inspect-new
              └─ enough new labels ──► snapshot-new ──► training graph and gate ──► note-trained

A run that finds nothing new is the first task alone. A training does not hold up the next polls: the schedule may have
two runs at once, because what they share is claimed, and the second one never starts another training.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp import compiler, dsl

from components import new_imagery as tasks
from pipelines.services import locked_down, one_line, serve

if TYPE_CHECKING:
    from pipelines.training import Setting

NAME = "damcrack-new-imagery"
TRIES = 2  # after a pod was lost, or S3 was away for longer than the tasks themselves wait


def compile_new_imagery(setting: "Setting", imagery_yaml: str, out: Path) -> None:
    """Write the pipeline as YAML; the same setting gives the same bytes."""
    compiler.Compiler().compile(new_imagery(setting, imagery_yaml), str(out))


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


def _equip(task: dsl.PipelineTask, image: str) -> dsl.PipelineTask:
    """Image, services and few rights; never answered from Kubeflow's cache, because each looks at the bucket."""
    serve(task)
    locked_down(task, "8Gi")
    task.set_cpu_request("1").set_memory_request("1Gi").set_memory_limit("4Gi")
    return task.set_container_image(image).set_caching_options(False).set_retry(TRIES, "60s", 2.0)
