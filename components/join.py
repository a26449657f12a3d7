"""The last task of a run: its lock parts become one dvc.lock."""

from kfp import dsl


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def join_lock(lock_parts: list, lock: dsl.Output[dsl.Artifact]) -> None:  # type: ignore[type-arg]
    """Write the run's dvc.lock: put it into a checkout, and `dvc pull` brings what the run made."""
    from pathlib import Path

    from damcrack.kubeflow.lock_parts import merge, write_lock

    write_lock(Path(lock.path), merge(lock_parts))
