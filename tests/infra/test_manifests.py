"""Every manifest under infra/kubernetes: valid, complete, with few rights and no secrets."""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "infra/kubernetes"
KUBERNETES = ("1.32", "1.36")  # the oldest and the newest that Kubeflow is run on
KUSTOMIZATIONS = sorted(path.parent for path in PLACE.rglob("kustomization.yaml"))
EXAMPLES = sorted(PLACE.rglob("*.example.yaml"))
VALUES = {("ConfigMap", "damcrack-values")}
MAY_SPEAK_TO_THE_API = {"damcrack-pipeline"}

Manifest = dict[str, Any]


def name_of(path: Path) -> str:
    return str(path.relative_to(PLACE))


def declared(folder: Path) -> Manifest:
    loaded: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return loaded


RENDERED = [folder for folder in KUSTOMIZATIONS if declared(folder)["kind"] == "Kustomization"]
COMPONENTS = [folder for folder in KUSTOMIZATIONS if declared(folder)["kind"] == "Component"]


@cache
def rendered(folder: Path) -> tuple[Manifest, ...]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl on the PATH, to render")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


@pytest.fixture
def with_component(tmp_path: Path) -> Any:
    """The base with one component on top, rendered."""

    def render(component: Path) -> tuple[Manifest, ...]:
        paths = {"resources": PLACE / "base", "components": component}
        relative = {kind: [os.path.relpath(path, tmp_path)] for kind, path in paths.items()}
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": "damcrack", **relative}))
        return rendered(tmp_path)

    return render


def pods(value: Any) -> Iterator[Manifest]:
    """Specs of all pods inside a value."""
    if isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from pods(inner)


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def check_valid(manifests: tuple[Manifest, ...]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs pip install kubernetes-validate")
    for one, version in itertools.product(manifests, KUBERNETES):
        validator.validate(one, version, strict=True)


REFERENCES = {  # key in a pod's spec -> kind, and the key of the name below it
    "configMap": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "secretRef": ("Secret", "name"),
    "secretKeyRef": ("Secret", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}


def named(value: Any) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything that a pod's spec refers to."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in REFERENCES and isinstance(inner, dict):
                kind, name = REFERENCES[key]
                yield kind, inner[name]
            elif key == "serviceAccountName" and inner != "default":
                yield "ServiceAccount", inner
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from named(inner)


def check_references(manifests: tuple[Manifest, ...], outside: set[tuple[str, str]]) -> None:
    """Accounts, settings, secrets and volumes that pods name are there, or made by hand after an example."""
    there = {(one["kind"], one["metadata"]["name"]) for one in manifests} | outside
    assert set(named(list(pods(list(manifests))))) <= there


def check_locked(pod: Manifest) -> None:
    """No root, no writable root, no capability, bounded memory, and the API only for who needs it."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    if pod.get("serviceAccountName") not in MAY_SPEAK_TO_THE_API:
        assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key in pod if pod[key]}
    assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume]
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def secrets_by_hand() -> set[tuple[str, str]]:
    """What the example files name: a user fills them in."""
    found = [one for path in EXAMPLES for one in yaml.safe_load_all(path.read_text()) if one]
    return {("Secret", one["metadata"]["name"]) for one in found}


def there_before() -> set[tuple[str, str]]:
    """What the base brings, for what is applied beside it, and the values, which `kubectl` makes of files."""
    return {(one["kind"], one["metadata"]["name"]) for one in rendered(PLACE / "base")} | VALUES


def check_all(manifests: tuple[Manifest, ...]) -> None:
    check_valid(manifests)
    check_references(manifests, secrets_by_hand() | there_before())
    for pod in pods(list(manifests)):
        check_locked(pod)


@pytest.mark.slow
@pytest.mark.parametrize("folder", RENDERED, ids=name_of)
def test_a_kustomization_renders_to_valid_locked_manifests(folder: Path) -> None:
    """By the schemas of Kubernetes, unknown fields forbidden, pods with the least rights; what they name is there."""
    check_all(rendered(folder))


@pytest.mark.slow
@pytest.mark.parametrize("folder", COMPONENTS, ids=name_of)
def test_a_component_on_the_base_renders_to_valid_locked_manifests(folder: Path, with_component: Any) -> None:
    """As a kustomization."""
    check_all(with_component(folder))


def test_every_manifest_belongs_to_a_kustomization() -> None:
    """No file lies about that nobody applies."""
    used = set()
    for folder in KUSTOMIZATIONS:
        for entry in [*declared(folder).get("resources", []), *declared(folder).get("components", [])]:
            used.add((folder / entry).resolve())
        for generator in declared(folder).get("configMapGenerator", []):
            used |= {(folder / file.split("=")[-1]).resolve() for file in generator.get("files", [])}
        for patch in declared(folder).get("patches", []):
            used |= {(folder / patch["path"]).resolve()} if "path" in patch else set()
    lying = {path for path in PLACE.rglob("*.yaml") if path.name != "kustomization.yaml"} - set(EXAMPLES)
    assert {name_of(path) for path in lying - used} == set()


@pytest.mark.parametrize("folder", RENDERED, ids=name_of)
def test_no_manifest_holds_a_secret(folder: Path) -> None:
    """Secrets are named, never written: no Secret with a value, no variable or setting that is called like one."""
    secret = re.compile(r"KEY|PASSWORD|TOKEN|SECRET|CREDENTIAL", re.IGNORECASE)
    for one in rendered(folder):
        assert not (
            one["kind"] == "Secret" and any((one.get("data") or one.get("stringData") or {}).values())
        )
        if one["kind"] == "ConfigMap":
            assert not [key for key in one.get("data", {}) if secret.search(key)]
        for container in itertools.chain.from_iterable(containers(pod) for pod in pods(one)):
            literal = [entry["name"] for entry in container.get("env", []) if "value" in entry]
            assert not [name for name in literal if secret.search(name)]


def test_example_secrets_are_empty() -> None:
    """They show the names."""
    for path in EXAMPLES:
        for one in yaml.safe_load_all(path.read_text()):
            assert one["kind"] == "Secret"
            assert set(one.get("stringData", {}).values()) | set(one.get("data", {}).values()) <= {""}


@pytest.mark.parametrize("folder", RENDERED, ids=name_of)
def test_rights_are_few(folder: Path) -> None:
    """No cluster-wide right, no star, and secrets by name only."""
    for one in rendered(folder):
        assert one["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        for rule in one.get("rules", []) if one["kind"] == "Role" else []:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"] or rule["resourceNames"]


def of_kind(kind: str, manifests: tuple[Manifest, ...]) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


PROFILE, STANDALONE, LOCAL = (
    PLACE / "overlays" / name for name in ("kubeflow-profile", "kubeflow-standalone", "local")
)
PIPELINE_PODS = {"matchExpressions": [{"key": "pipelines.kubeflow.org/v2_component", "operator": "Exists"}]}


@pytest.mark.parametrize(("overlay", "selector"), [(LOCAL, {}), (PROFILE, PIPELINE_PODS)])
def test_nothing_is_open_on_the_network_by_default(overlay: Path, selector: Manifest) -> None:
    """One policy closes every pod, both ways; in a Profile's namespace, where Kubeflow has pods too, every task."""
    closed = [one["spec"] for one in of_kind("NetworkPolicy", rendered(overlay))]
    assert {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]} in closed
    assert all(spec["podSelector"] == selector or overlay == LOCAL for spec in closed)


@pytest.mark.parametrize("folder", RENDERED, ids=name_of)
def test_a_namespace_carries_no_label_that_kubeflow_reads(folder: Path) -> None:
    """By `part-of` and its own prefix Kubeflow decides whom it lets in: they are not ours to set."""
    for one in of_kind("Namespace", rendered(folder)):
        labels = one["metadata"].get("labels", {})
        assert not [key for key in labels if key.endswith("/part-of") or "kubeflow.org" in key]


@pytest.mark.parametrize(("overlay", "namespace"), [(PROFILE, "damcrack"), (STANDALONE, "kubeflow")])
def test_kubeflows_namespace_is_not_ours_to_make(overlay: Path, namespace: str) -> None:
    """Both overlays bring account, rights and settings into a namespace that is there, and bind them in it."""
    manifests = rendered(overlay)
    assert not of_kind("Namespace", manifests)
    assert {one["metadata"]["namespace"] for one in manifests} == {namespace}
    names = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    assert names > {("ServiceAccount", "damcrack-pipeline"), ("ConfigMap", "damcrack-services")}
    (binding,) = of_kind("RoleBinding", manifests)
    assert binding["subjects"][0]["namespace"] == namespace


def test_nothing_bounds_kubeflow_itself() -> None:
    """Standalone shares Kubeflow's namespace: a policy, quota or default there would hold for Kubeflow."""
    kinds = {one["kind"] for one in rendered(STANDALONE)}
    assert kinds == {"ConfigMap", "Role", "RoleBinding", "ServiceAccount"}


def test_tasks_reach_kubeflow_the_api_and_names() -> None:
    """Policies see the port behind a service: SeaweedFS' 8333, the API server of each distribution; DNS on the node."""
    policies = {one["metadata"]["name"]: one["spec"]["egress"] for one in of_kind("NetworkPolicy", rendered(PROFILE))
                if "egress" in one["spec"]}  # fmt: skip
    inside, api = ({port["port"] for port in rule["ports"]} for rule in policies["kubeflow"])
    assert inside >= {8080, 8887, 8888, 8333, 9000} and api >= {443, 6443, 8443}
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in policies["names"][0]["to"]


def gibibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi"))


@pytest.mark.parametrize("overlay", [PROFILE, LOCAL])
def test_a_task_has_disk_for_a_workspace(overlay: Path) -> None:
    """A pod that cannot say what it needs gets 64 GiB per container, and the quota admits all pods of that default."""
    (limits,), (quota,) = (of_kind(kind, rendered(overlay)) for kind in ("LimitRange", "ResourceQuota"))
    (default,), hard = limits["spec"]["limits"], quota["spec"]["hard"]
    assert gibibytes(default["default"]["ephemeral-storage"]) >= 64
    assert "limits.ephemeral-storage" not in hard
    asked = int(hard["pods"]) * 2 * gibibytes(default["defaultRequest"]["ephemeral-storage"])
    assert asked <= gibibytes(hard["requests.ephemeral-storage"])


@pytest.mark.parametrize("folder", RENDERED, ids=name_of)
def test_no_volume_is_asked_for_that_nobody_mounts(folder: Path) -> None:
    """A claim costs money."""
    manifests = rendered(folder)
    used = set(named(list(pods(list(manifests)))))
    for claim in of_kind("PersistentVolumeClaim", manifests):
        assert ("PersistentVolumeClaim", claim["metadata"]["name"]) in used


def test_jobs_have_no_sidecar_of_istio(with_component: Any) -> None:
    """In a Profile's namespace it would outlive the job's own container."""
    for component in (PLACE / "poll", PLACE / "gpu"):
        for one in with_component(component):
            if one["kind"] in ("CronJob", "Job"):
                job = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
                annotations = job["template"]["metadata"]["annotations"]
                assert annotations["sidecar.istio.io/inject"] == "false"


def test_gpu_pods_ask_for_the_nodes_that_terraform_makes(with_component: Any) -> None:
    """Label, taint and quota fit: whoever wants a GPU gets on such a node, and nobody else does."""
    manifests = with_component(PLACE / "gpu")
    wanting = [pod for pod in pods(list(manifests)) if "nvidia.com/gpu" in str(pod["containers"])]
    assert wanting
    terraform = (ROOT / "infra/terraform/cluster.tf").read_text()
    for pod in wanting:
        ((label, value),) = pod["nodeSelector"].items()
        assert f'"{label}" = "{value}"' in terraform
        (toleration,) = pod["tolerations"]
        assert f'key    = "{toleration["key"]}"' in terraform
    (quota,) = of_kind("ResourceQuota", rendered(PROFILE))
    assert int(quota["spec"]["hard"]["requests.nvidia.com/gpu"]) > 0


@pytest.mark.parametrize(("taken", "inspected", "ends"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_the_poll_inspects_whatever_take_in_said(
    tmp_path: Path, taken: int, inspected: int, ends: int
) -> None:
    """An object that cannot be read fails the job, and holds up no inspection of the others."""
    command = tmp_path / "damcrack"
    command.write_text(
        f'#!/bin/sh\necho "$2" >>{tmp_path}/calls\n[ "$2" = take-in ] && exit {taken}\nexit {inspected}\n'
    )
    command.chmod(0o755)
    (pod,) = pods(yaml.safe_load((PLACE / "poll/cron-job.yaml").read_text()))
    (container,) = containers(pod)
    done = subprocess.run(container["args"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (tmp_path / "calls").read_text().split() == ["take-in", "inspect"]
    assert done.returncode == ends
