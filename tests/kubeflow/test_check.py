"""`damcrack pipeline check` with Kubernetes' own client against a small HTTP server that answers as its API does."""

import json
import re

import pytest
import yaml
from click.testing import CliRunner

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')

from damcrack.cli.main import cli
from damcrack.files import InputError
from kubeflow_service import Kubeflow, serving

pytestmark = pytest.mark.slow


class Cluster(Kubeflow):
    """Kubeflow and the Kubernetes API; `objects` by path below the namespace (empty: the namespace itself)."""

    def __init__(self, namespace):
        super().__init__()
        self.namespace, self.forbidden, self.may_report = namespace, set(), True
        labels = {"pipelines.kubeflow.org/enabled": "true", "app.kubernetes.io/part-of": "kubeflow-profile"}
        self.objects = {
            "": {"kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
            "configmaps/damcrack-services": {"kind": "ConfigMap", "data": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}},
            "serviceaccounts/damcrack-pipeline": {"kind": "ServiceAccount"},
            "secrets/mlpipeline-minio-artifact": {"kind": "Secret", "data": {"accesskey": "bWluaW8="}},
            "resourcequotas": {"kind": "ResourceQuotaList", "items": []},
        }  # fmt: skip

    def answer(self, method, path, body, query):
        if path.startswith("/apis/v2beta1"):
            return super().answer(method, path, body, query)
        if path == f"/apis/authorization.k8s.io/v1/namespaces/{self.namespace}/localsubjectaccessreviews":
            assert body["spec"]["user"] == f"system:serviceaccount:{self.namespace}:damcrack-pipeline"
            return 201, body | {"status": {"allowed": self.may_report}}
        inside = re.fullmatch(rf"/api/v1/namespaces/{self.namespace}/?(.*)", path)
        name = inside and inside[1]
        if name in self.forbidden:
            return self.failure(403, "Forbidden")
        found = self.objects.get(name)
        if found:
            return 200, {"apiVersion": "v1", "metadata": {}, **found}
        return self.failure(404, "NotFound")

    def failure(self, code, reason):
        return code, {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reason,
            "code": code,
        }


@pytest.fixture
def cluster(request, tmp_path, monkeypatch):
    """A Kubeflow for many users, with a Profile `dam`; in `kubeflow` one for one user, whose runs are there too."""
    cluster = Cluster(getattr(request, "param", "dam"))
    cluster.health["multi_user"] = cluster.namespace == "dam"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serving(cluster) as address:
        monkeypatch.setenv("KFP_ENDPOINT", address)
        context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": [context],
                  "clusters": [{"name": "here", "cluster": {"server": address}}],
                  "users": [{"name": "me", "user": {"token": "t0ken"}}]}  # fmt: skip
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield cluster


BOTH = pytest.mark.parametrize("cluster", ["kubeflow", "dam"], indirect=True)


def check(cluster):
    namespace = ["--namespace", cluster.namespace] if cluster.health["multi_user"] else []
    return CliRunner().invoke(cli, ["pipeline", "check", *namespace])


def states(output):
    return {line[9:].split(":")[0]: line.split()[0] for line in output.splitlines()}


@BOTH
def test_a_cluster_with_all_that_pods_need_passes(cluster):
    """The secrets of S3 and MLflow may be absent; nothing secret is printed."""
    done = check(cluster)
    assert done.exit_code == 0, done.exception
    found = states(done.output)
    assert {found.pop(f"secret {name}") for name in ("damcrack-s3", "damcrack-mlflow")} == {"optional"}
    assert set(found.values()) == {"ok"}
    assert ("label pipelines.kubeflow.org/enabled=true" in found) == cluster.health["multi_user"]
    assert "bWluaW8=" not in done.output and "t0ken" not in done.output


@BOTH
@pytest.mark.parametrize(
    ("absent", "fix"),
    [
        ("", "kubectl"),
        ("configmaps/damcrack-services", "kubectl apply -k infra/kubernetes/overlays/kubeflow-"),
        ("serviceaccounts/damcrack-pipeline", "kubectl apply -k infra/kubernetes/overlays/kubeflow-"),
        ("secrets/mlpipeline-minio-artifact", "kubectl get secret"),
    ],
)
def test_what_is_missing_comes_with_its_command(cluster, absent, fix):
    """The check fails, and the line of that object holds the command for this kind of install."""
    del cluster.objects[absent]
    got = check(cluster)
    assert isinstance(got.exception, InputError)
    (line,) = [line for line in got.output.splitlines() if line.startswith("missing") and "label" not in line]
    assert fix in line and (not fix.endswith("-") or ("-profile" in line) == cluster.health["multi_user"])


def test_an_address_of_mlflow_that_is_empty_is_missing(cluster):
    """A pod would wait for the key, or record where nobody looks."""
    for data in ({"MLFLOW_TRACKING_URI": ""}, {"AWS_DEFAULT_REGION": "us-east-1"}, None):
        cluster.objects["configmaps/damcrack-services"] = {"kind": "ConfigMap", "data": data}
        assert "MLFLOW_TRACKING_URI" in str(check(cluster).exception)


def test_an_account_without_rights_is_seen(cluster):
    """By what it may do, not by the name of a role."""
    cluster.may_report = False
    assert "workflowtaskresults" in str(check(cluster).exception)


def test_a_full_quota_is_seen(cluster):
    """A limit of nothing is none that fills up."""
    hard = {"requests.memory": "2Gi", "services.nodeports": "0"}
    status = {"hard": hard, "used": {"requests.memory": "1Gi"}}
    cluster.objects["resourcequotas"]["items"] = [{"metadata": {"name": "damcrack"}, "status": status}]
    assert check(cluster).exit_code == 0
    status["used"]["requests.memory"] = "2048Mi"
    assert "quota" in str(check(cluster).exception)


@pytest.mark.parametrize(
    ("tag", "state"), [("2.15.0", "missing"), ("2.16.0", "ok"), ("v3.0", "ok"), ("unknown", "unseen")]
)
def test_the_version_of_kubeflow_is_judged(cluster, tag, state):
    """2.16 or later; a build that does not say its version is no fault."""
    cluster.health["tag_name"] = tag
    got = check(cluster)
    assert states(got.output)[f"Kubeflow Pipelines {tag}, 2.16 or later needed"] == state
    assert (got.exit_code == 0) == (state != "missing")


def test_what_may_not_be_read_is_no_fault(cluster):
    """A user of a Profile has no right to read its namespace."""
    cluster.forbidden = {"", "secrets/mlpipeline-minio-artifact"}
    done = check(cluster)
    assert done.exit_code == 0
    assert states(done.output)[f"namespace {cluster.namespace}"] == "unseen"


@pytest.mark.parametrize("config", ["", json.dumps({"kind": "Config", "current-context": "none"}), None])
def test_no_kubernetes_to_ask_is_one_sentence(cluster, tmp_path, config):
    """No context, an empty file or none."""
    (tmp_path / "config").unlink() if config is None else (tmp_path / "config").write_text(config)
    got = check(cluster)
    assert isinstance(got.exception, InputError) and "kubectl get pods" in str(got.exception)
