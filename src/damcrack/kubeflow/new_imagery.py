"""The recurring run: ingest what arrived, inspect it with the champion, train when enough has come.

    take-in ──┬─ batches without report ──► inspect-new
              └─ enough to train on ──► snapshot-new ──► training graph and gate ──► note-trained

A run that finds nothing new is the first task alone.
"""

from typing import Any

from kfp import dsl

from damcrack.kubeflow.graph import Needs
from damcrack.kubeflow.pipeline import Setting, equip, one_line, training

NAME = "damcrack-new-imagery"
# A schedule waits for its run. One that hangs, in a pod that no node takes for example, ends here, and the next poll
# goes on: photos that came meanwhile are taken in, and a training continues behind the stages that it finished.
LONGEST_RUN_S = 7 * 86400
INSPECT, TRAIN = 1, 2


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def take_in(imagery_yaml: str) -> int:
    """Ingest what arrived; 0: nothing to do, 1: there are photos to inspect, 2: and a training to start."""
    from damcrack.imagery import calls as imagery

    done = imagery.take_in(imagery_yaml, in_pipeline=True)
    print(done, flush=True)
    return 2 if done["train"] else int(done["inspect"])


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def snapshot_new(imagery_yaml: str, snapshots: dict) -> dict:  # type: ignore[type-arg]
    """Store a snapshot of all ingested photos to train on; returns `snapshots` with its address for `photos`."""
    from damcrack.imagery import calls as imagery

    return {**snapshots, "photos": imagery.keep_snapshot(imagery_yaml)}


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def inspect_new(imagery_yaml: str, model: str, params: str, reports: dsl.Output[dsl.Markdown]) -> None:
    """Inspect every batch without a report with the champion; the reports lie in the store."""
    from pathlib import Path

    from damcrack.imagery import calls as imagery

    done = imagery.inspect(imagery_yaml, model, params)
    Path(reports.path).write_text("".join(f"- {name}: {value}\n" for name, value in done.items()))


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def note_trained(imagery_yaml: str, snapshots: dict) -> None:  # type: ignore[type-arg]
    """Count labels from here to the next training."""
    from damcrack.imagery import calls as imagery

    imagery.note_trained(imagery_yaml, snapshots["photos"])


def new_imagery(setting: Setting, imagery_yaml: str, train: Any = None) -> Any:
    """The pipeline; `train` makes the task of params, remote and snapshots, by default the training pipeline."""
    train = train or training(setting)
    short, long = (Needs(image="cpu", memory="4Gi", timeout=timeout) for timeout in ("1h", "1d"))

    @dsl.pipeline(
        name=NAME,
        description="New photos in once, inspected, trained on when enough have come.",
        pipeline_config=dsl.PipelineConfig(active_deadline_seconds=LONGEST_RUN_S),
    )
    def pipeline(
        imagery: str = one_line(imagery_yaml),
        model: str = "models:/dam-crack-detector@champion",
        params: str = one_line(setting.params),
        remote: str = setting.remote,
        snapshots: dict = dict(setting.snapshots),  # type: ignore[type-arg]  # noqa: B006
    ) -> None:
        taken = equip(take_in(imagery_yaml=imagery), short, setting.images)
        with dsl.If(taken.output >= INSPECT, name="batches without report"):
            inspected = inspect_new(imagery_yaml=imagery, model=model, params=params)
            equip(inspected, long, setting.images)
        with dsl.If(taken.output >= TRAIN, name="enough to train on"):
            taken_snapshot = snapshot_new(imagery_yaml=imagery, snapshots=snapshots)
            equip(taken_snapshot, short, setting.images)
            trained = train(params=params, remote=remote, snapshots=taken_snapshot.output)
            noted = note_trained(imagery_yaml=imagery, snapshots=taken_snapshot.output)
            equip(noted, short, setting.images).after(trained)

    return pipeline
