"""What a cluster must have for our pods: the one place that names it, and a look at whether it is there.

All but Kubeflow itself comes from infra/kubernetes.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from damcrack.files import InputError

ACCOUNT = "damcrack-pipeline"
SETTINGS = "damcrack-services"
ARTIFACTS = "mlpipeline-minio-artifact"  # Kubeflow's, with the keys of its artifact store
# Values never pass through here. Without an address of MLflow a task would record where nobody looks, so that one has
# to be there. A cluster that gives pods a role has no S3 keys.
REQUIRED = ("MLFLOW_TRACKING_URI",)
OPTIONAL = ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
SECRETS = {
    "damcrack-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "damcrack-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}
OLDEST = (2, 16)  # the first Kubeflow Pipelines that lets a task choose its user
PROFILE_LABELS = {
    "pipelines.kubeflow.org/enabled": "true",
    "app.kubernetes.io/part-of": "kubeflow-profile",
}

PROFILE = (
    """echo '{{"apiVersion": "kubeflow.org/v1", "kind": "Profile", "metadata": {{"name": "{}"}}, """
    """"spec": {{"owner": {{"kind": "User", "name": "YOUR-ADDRESS"}}}}}}' | kubectl apply -f -"""
)


@dataclass(frozen=True)
class Finding:
    """`state` is ok, missing, optional (absent, and may be) or unseen (no right to look); `fix` a command."""

    state: str
    what: str
    fix: str = ""


def check_version(health: Mapping[str, Any]) -> Finding:
    """Judge the answer of Kubeflow Pipelines' /healthz, whose `tag_name` is the version of a released image."""
    tag, wanted = str(health.get("tag_name")), ".".join(map(str, OLDEST))
    what = f"Kubeflow Pipelines {tag}, {wanted} or later needed"
    version = re.match(r"v?(\d+)\.(\d+)", tag)
    if version is None:
        return Finding("unseen", what, "kubectl -n kubeflow get deployment ml-pipeline -o wide")
    is_new = tuple(map(int, version.groups())) >= OLDEST
    return Finding("ok", what) if is_new else Finding("missing", what, "upgrade Kubeflow Pipelines")


def check_namespace(namespace: str, account: str, multi_user: bool) -> Iterator[Finding]:
    """Look at what pods in `namespace` need, with the rights of the current kubectl context.

    Raises:
        InputError: the Kubernetes API cannot be asked.
    """
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config()
        else:
            config.load_kube_config(os.environ.get("KUBECONFIG"))
        yield from _findings(client, namespace, account, multi_user)
    except (config.ConfigException, client.ApiException, HTTPError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the Kubernetes API does not answer ({reason}); expected a context in which `kubectl get pods` works"
        ) from None


def _findings(client: Any, namespace: str, account: str, multi_user: bool) -> Iterator[Finding]:
    core, kubectl = client.CoreV1Api(), f"kubectl -n {namespace}"
    overlay = "kubeflow-profile" if multi_user else "kubeflow-standalone"
    apply = f"kubectl apply -k infra/kubernetes/overlays/{overlay} (in it, namespace: {namespace})"
    absent = PROFILE.format(namespace) if multi_user else _find("deployment", "ml-pipeline")
    yield _look(f"namespace {namespace}", absent, partial(core.read_namespace, namespace))
    for label, value in PROFILE_LABELS.items() if multi_user else ():
        yield _look(
            f"label {label}={value}",
            f"kubectl label --overwrite namespace {namespace} {label}={value}",
            partial(core.read_namespace, namespace),
            partial(_has_label, label, value),
        )
    yield _look(
        f"config map {SETTINGS} with {', '.join(REQUIRED)}",
        apply,
        partial(core.read_namespaced_config_map, SETTINGS, namespace),
        lambda found: all((found.data or {}).get(key) for key in REQUIRED),
    )
    named = partial(core.read_namespaced_service_account, account, namespace)
    yield _look(f"service account {account}", apply, named)
    yield _look(
        f"right of {account} to create workflowtaskresults",  # without it Argo calls each pod failed
        apply,
        partial(
            client.AuthorizationV1Api().create_namespaced_local_subject_access_review,
            namespace,
            _review(client, namespace, account),
        ),
        lambda found: bool(found.status.allowed),
    )
    secret = partial(core.read_namespaced_secret, namespace=namespace)
    yield _look(f"secret {ARTIFACTS}", _find("secret", ARTIFACTS), partial(secret, ARTIFACTS))
    for name, keys in SECRETS.items():
        literals = " ".join(f"--from-literal={key}=..." for key in keys)
        fix = f"{kubectl} create secret generic {name} {literals}"
        found = _look(f"secret {name}", fix, partial(secret, name))
        yield replace(found, state="optional") if found.state == "missing" else found
    yield _look(
        "room in the namespace's quota",
        f"{kubectl} describe quota",
        partial(core.list_namespaced_resource_quota, namespace),
        lambda found: not any(_is_full(quota.status) for quota in found.items),
    )


def _has_label(label: str, value: str, namespace: Any) -> bool:
    return bool((namespace.metadata.labels or {}).get(label) == value)


def _find(kind: str, name: str) -> str:
    return f"kubectl get {kind} -A --field-selector metadata.name={name} (give its namespace as --namespace)"


def _look(
    what: str, fix: str, read: Callable[..., Any], is_right: Callable[[Any], bool] = lambda found: True
) -> Finding:
    """One object of the Kubernetes API, of which `is_right` says whether it is as it must be."""
    from kubernetes.client import ApiException

    try:
        state = "ok" if is_right(read(_request_timeout=10)) else "missing"
    except ApiException as error:
        if error.status not in (403, 404):
            raise
        state = "missing" if error.status == 404 else "unseen"
    return Finding(state, what, fix if state == "missing" else "")


def _review(client: Any, namespace: str, account: str) -> Any:
    attributes = client.V1ResourceAttributes(
        namespace=namespace, verb="create", group="argoproj.io", resource="workflowtaskresults"
    )
    user = f"system:serviceaccount:{namespace}:{account}"
    spec = client.V1SubjectAccessReviewSpec(user=user, resource_attributes=attributes)
    return client.V1LocalSubjectAccessReview(metadata=client.V1ObjectMeta(namespace=namespace), spec=spec)


def _is_full(status: Any) -> bool:
    from kubernetes.utils.quantity import parse_quantity

    hard, used = status.hard or {}, status.used or {}
    return any(0 < parse_quantity(most) <= parse_quantity(used.get(key, 0)) for key, most in hard.items())
