"""One stage of dvc.yaml as a task. The body sees only itself: it runs in the image, where damcrack is installed."""

from kfp import dsl


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def run_stage(
    stage: str,
    lock_parts: list,  # type: ignore[type-arg]
    params: str,
    remote: str,
    snapshots: dict,  # type: ignore[type-arg]
    graph: str,
    image: str,
    revision: str,
    metrics: dsl.Output[dsl.Metrics],
    scores: dsl.Output[dsl.ClassificationMetrics],
    page: dsl.Output[dsl.HTML],
) -> str:
    """Restore or run a stage; hand on its lock part, and what Kubeflow draws of it.

    `image` and `revision` name what runs, so that Kubeflow's own cache never serves another code's result.
    """
    from pathlib import Path

    from damcrack.kubeflow.task import run_in_pipeline

    done = run_in_pipeline(
        stage=stage,
        lock_parts=lock_parts,
        params=params,
        remote=remote,
        snapshots=snapshots,
        graph=graph,
        image=image,
        revision=revision,
    )
    metrics.metadata.update(done.metrics)
    scores.metadata.update(done.scores)
    page.metadata.update(stage=stage, restored=done.restored)
    Path(page.path).write_text(done.page)
    return done.lock_part
