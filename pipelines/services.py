"""What every task of every pipeline gets from the cluster, and what none may do."""

import yaml
from kfp import dsl, kubernetes

# Names in infra/kubernetes; the values never pass through here. On a cluster that gives pods a role there are no S3
# keys, so no secret has to be there.
SETTINGS = ("MLFLOW_TRACKING_URI", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
SECRETS = {
    "damcrack-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "damcrack-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}


def serve(task: dsl.PipelineTask) -> None:
    """Settings by config map, credentials by secret: only names, never values, are in the pipeline.

    Without an address of MLflow a task would record where nobody looks, so that one has to be there.
    """
    must, may = SETTINGS[:1], SETTINGS[1:]
    kubernetes.use_config_map_as_env(task, "damcrack-services", {key: key for key in must})
    kubernetes.use_config_map_as_env(task, "damcrack-services", {key: key for key in may}, optional=True)
    for name, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, name, {key: key for key in keys}, optional=True)


def locked_down(task: dsl.PipelineTask, tmp: str | None) -> None:
    """Not as root; /tmp is the only folder that it writes to, of `tmp` bytes at most."""
    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=tmp)


def one_line(text: str) -> str:
    """The same YAML without line breaks: kfp repeats defaults in a comment, where a second line would be YAML."""
    flat = yaml.safe_dump(yaml.safe_load(text), default_flow_style=True, sort_keys=False, width=10**9)
    return flat.strip()
