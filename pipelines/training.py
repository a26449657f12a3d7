"""The training pipeline: one task for each stage that dvc.yaml makes of a value set, and one that joins their locks.

Nothing here names a stage. What a task needs of a machine is its `meta:` in dvc.yaml.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from components.join import join_lock
from components.stage import run_stage
from damcrack.kubeflow.derive import Node, as_text, derive
from pipelines.services import locked_down, one_line, serve

NAME = "damcrack-training"
RETRY_FIRST_PAUSE = "30s"


@dataclass(frozen=True)
class Setting:
    """What a compiled pipeline is made for.

    `images` maps the `image` of a stage's meta to the image's address, by digest where it was pushed; `revision`
    is the code's; `snapshots` maps a stage to the text or s3:// address of what its source holds.
    """

    checkout: Path
    params: str
    remote: str
    images: Mapping[str, str]
    revision: str
    snapshots: Mapping[str, str] = field(default_factory=dict)


def compile_training(setting: Setting, out: Path) -> None:
    """Write the pipeline as YAML; the same setting gives the same bytes."""
    compiler.Compiler().compile(training(setting), str(out))


def training(setting: Setting) -> Callable[..., Any]:
    """The pipeline; its parameters can be changed at submission as long as they make the same graph."""
    nodes = derive(setting.checkout, setting.params)
    graph = as_text(nodes)

    @dsl.pipeline(name=NAME, description="From photographs to a registered crack detector, as dvc.yaml says.")
    def pipeline(
        params: str = one_line(setting.params),
        remote: str = setting.remote,
        snapshots: dict = dict(setting.snapshots),  # type: ignore[type-arg]  # noqa: B006
    ) -> None:
        told = {"params": params, "remote": remote, "snapshots": snapshots, "graph": graph}
        tasks: dict[str, dsl.PipelineTask] = {}
        for node in nodes:
            parts = [tasks[parent].outputs["Output"] for parent in node.parents]
            image = setting.images[node.needs.image]
            task = run_stage(
                stage=node.name, lock_parts=parts, image=image, revision=setting.revision, **told
            )
            tasks[node.name] = equip(task.set_container_image(image), node)
        join = join_lock(lock_parts=[task.outputs["Output"] for task in tasks.values()])
        join.set_container_image(setting.images["cpu"]).set_display_name("dvc.lock")
        locked_down(join, "1Gi")

    return pipeline


def equip(task: dsl.PipelineTask, node: Node) -> dsl.PipelineTask:
    """Give a task what its stage needs of a machine, its services, and what it may not do."""
    needs = node.needs
    task.set_display_name(node.name)
    task.set_cpu_request(str(needs.cpu)).set_memory_request(needs.memory).set_memory_limit(needs.memory)
    # What reads the outside world or acts on it must not be answered from Kubeflow's cache.
    task.set_caching_options(enable_caching=needs.restore_if is None and bool(node.parents))
    task.set_retry(needs.retries, backoff_duration=RETRY_FIRST_PAUSE, backoff_factor=2.0)
    kubernetes.set_timeout(task, needs.timeout_s)
    if needs.gpu:
        task.set_accelerator_type(needs.gpu_type).set_accelerator_limit(needs.gpu)
        kubernetes.add_toleration(task, key=needs.gpu_type, operator="Exists", effect="NoSchedule")
    if needs.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=needs.shm)
    for key, value in needs.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in needs.tolerations:
        kubernetes.add_toleration(task, **toleration)
    serve(task)
    kubernetes.use_field_path_as_env(task, "DAMCRACK_GRAPH_RUN", "metadata.labels['pipeline/runid']")
    locked_down(task, None)
    return task
