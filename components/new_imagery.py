"""Tasks around new imagery, as Kubeflow sees them: a call each. Their bodies see nothing of this file."""

from kfp import dsl

NOTHING, INSPECT, TRAIN = 0, 1, 2


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def take_in(imagery_yaml: str, image: str, run_id: str) -> int:
    """Take in what arrived; 0: nothing to do, 1: there are photos to inspect, 2: and a training to start.

    `image` is an input so that a run shows which code it was; `run_id` stays when the task is tried again.
    """
    from damcrack.imagery import calls as imagery

    config = imagery.as_file(imagery_yaml)
    done = imagery.take_in(config, claim_training=True, run_id=run_id)
    return 2 if done["train"] else int(done["inspect"])


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def snapshot_new(imagery_yaml: str, snapshots: dict) -> dict:  # type: ignore[type-arg]
    """Keep what was taken in as the snapshot to train on; returns `snapshots` with its address for `photos`."""
    from damcrack.imagery import calls as imagery

    config = imagery.as_file(imagery_yaml)
    return {**snapshots, "photos": imagery.keep_snapshot(config)}


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def inspect_new(
    imagery_yaml: str, model: str, params: str, run_id: str, reports: dsl.Output[dsl.Markdown]
) -> None:
    """Inspect every batch without a report with the champion; the reports lie in the store."""
    from pathlib import Path

    from damcrack.imagery import calls as imagery

    config, values = imagery.as_file(imagery_yaml), imagery.as_file(params, "params.yaml")
    done = imagery.inspect(config, model, values, run_id=run_id)
    Path(reports.path).write_text("".join(f"- {name}: {value}\n" for name, value in done.items()))


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def note_trained(imagery_yaml: str, snapshots: dict) -> None:  # type: ignore[type-arg]
    """Count labels from here to the next training."""
    from damcrack.imagery import calls as imagery

    config = imagery.as_file(imagery_yaml)
    imagery.note_trained(config, snapshots["photos"])
