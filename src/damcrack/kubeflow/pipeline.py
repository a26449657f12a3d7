"""The training pipeline: one task for each stage that dvc.yaml makes of a value set, and one that joins their locks.

Nothing here names a stage. What a task needs of a machine is its `meta:` in dvc.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl, kubernetes

from damcrack.files import InputError, temporary_folder, write_bytes
from damcrack.kubeflow.cluster import OPTIONAL, REQUIRED, SECRETS, SETTINGS
from damcrack.kubeflow.graph import Needs, as_text, derive
from damcrack.params import load_yaml

NAME = "damcrack-training"
# The task that joins the lock has the parts of all stages, up to 1,280 bytes each, twice in one argument of 128 KiB.
MOST_STAGES = 50
LARGEST_SNAPSHOTS = 64 * 2**10  # the launcher passes all parameters as one argument; Linux takes 128 KiB


@dataclass(frozen=True)
class Setting:
    """What a pipeline is compiled for.

    `images` maps the `image` of a stage's meta to the image's address, by digest where it was pushed; `revision`
    is the commit of their code; `snapshots` maps a stage to the text or address of its snapshot.
    """

    checkout: Path
    params: str
    remote: str
    images: Mapping[str, str]
    revision: str
    snapshots: Mapping[str, str] = field(default_factory=dict)


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def run_stage(
    stage: str,
    lock_parts: list,  # type: ignore[type-arg]
    params: str,
    remote: str,
    snapshots: dict,  # type: ignore[type-arg]
    graph: str,
    revision: str,
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> str:
    """Restore or run a stage; return its lock part. The body sees only itself and the damcrack of the image."""
    from pathlib import Path

    from damcrack.kubeflow.task import run_in_pipeline

    done = run_in_pipeline(
        stage=stage, lock_parts=lock_parts, params=params, remote=remote, snapshots=snapshots, graph=graph,
        revision=revision,
    )  # fmt: skip
    metrics.metadata.update(done.metrics)
    page.metadata.update(stage=stage, restored=done.restored)
    Path(page.path).write_text(done.page)
    return done.lock_part


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def join_lock(lock_parts: list, lock: dsl.Output[dsl.Artifact]) -> None:  # type: ignore[type-arg]
    """Write the run's dvc.lock: put it into a checkout, and `dvc pull` brings what the run made."""
    from pathlib import Path

    from damcrack.kubeflow.task import unpack, write_lock

    write_lock(Path(lock.path), unpack(lock_parts))


def training(setting: Setting) -> Any:
    """The pipeline; its parameters can be changed at submission as long as they make the same graph.

    Raises:
        InputError: dvc.yaml cannot be resolved with the values, or has too many stages; or a snapshot is of no stage or
            too large.
    """
    nodes = derive(setting.checkout, setting.params)
    if len(nodes) > MOST_STAGES:
        raise InputError(
            f"dvc.yaml has {len(nodes)} stages with these values, expected at most {MOST_STAGES}; "
            "leave items out, or make several runs"
        )
    graph, names = as_text(nodes), [node.name for node in nodes]
    size = sum(len(text.encode()) for text in setting.snapshots.values())
    for stage in setting.snapshots:
        if stage not in names:
            raise InputError(f"snapshot of {stage!r}: expected a stage, one of {', '.join(names)}")
        if size > LARGEST_SNAPSHOTS:
            raise InputError(
                f"snapshot of {', '.join(setting.snapshots)}: {size} bytes, at most {LARGEST_SNAPSHOTS} in all "
                "fit into a run's parameters; copy the file into a bucket and give its s3:// address"
            )

    @dsl.pipeline(name=NAME, description="From photographs to a registered crack detector, as dvc.yaml says.")
    def pipeline(
        params: str = one_line(setting.params),
        remote: str = setting.remote,
        snapshots: dict = dict(setting.snapshots),  # type: ignore[type-arg]  # noqa: B006
    ) -> None:
        parts: dict[str, Any] = {}
        for node in nodes:
            task = run_stage(
                stage=node.name,
                lock_parts=[parts[parent] for parent in node.parents],
                params=params,
                remote=remote,
                snapshots=snapshots,
                graph=graph,
                revision=setting.revision,
            )
            equip(task, node.needs, setting.images).set_display_name(node.name)
            parts[node.name] = task.outputs["Output"]
        join = join_lock(lock_parts=list(parts.values()))
        equip(join, Needs(image="cpu", timeout="1h"), setting.images).set_display_name("dvc.lock")

    return pipeline


def equip(task: dsl.PipelineTask, needs: Needs, images: Mapping[str, str]) -> dsl.PipelineTask:
    """Give a task its image, machine and services; it may write to /tmp only and is not root.

    Never answered from Kubeflow's cache, which knows neither code nor data: DVC restores.
    """
    task.set_container_image(images[needs.image]).set_caching_options(False)
    task.set_cpu_request(str(needs.cpu)).set_memory_request(needs.memory).set_memory_limit(needs.memory)
    # By default Argo counts an hour from the first attempt and kills the one that runs then.
    longest = f"{(needs.retries + 1) * needs.timeout_s + 3600}s"
    task.set_retry(needs.retries, "30s", 2.0, longest)
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
    kubernetes.use_config_map_as_env(task, SETTINGS, {key: key for key in REQUIRED})
    kubernetes.use_config_map_as_env(task, SETTINGS, {key: key for key in OPTIONAL}, optional=True)
    for name, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, name, {key: key for key in keys}, optional=True)
    kubernetes.use_field_path_as_env(task, "DAMCRACK_GRAPH_RUN", "metadata.labels['pipeline/runid']")
    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")
    return task


def one_line(text: str) -> str:
    """The same YAML without line breaks: kfp repeats defaults in a comment, where a second line would be YAML."""
    flat = yaml.safe_dump(load_yaml(text), default_flow_style=True, sort_keys=False, width=10**9)
    return flat.strip()


def compile_pipeline(pipeline: Any, out: Path) -> None:
    """Write a pipeline as YAML; the same setting gives the same bytes."""
    with temporary_folder() as folder:
        compiler.Compiler().compile(pipeline, str(folder / "pipeline.yaml"))
        write_bytes(out, (folder / "pipeline.yaml").read_bytes())
