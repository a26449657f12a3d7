"""What is written in infra/mlflow and infra/kubernetes/mlflow: without secrets, and careful."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MLFLOW, MANIFESTS = ROOT / "infra/mlflow", ROOT / "infra/kubernetes/mlflow"
TOOL = ROOT / "../shared/tools/postgres"
OBJECTS = [
    one
    for path in sorted(MANIFESTS.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for one in yaml.safe_load_all(path.read_text())
]
PODS = {
    one["metadata"]["name"]: one for one in OBJECTS if one["kind"] in ("Deployment", "StatefulSet", "CronJob")
}


def pod_of(workload):
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]["spec"]


@pytest.mark.parametrize("name", PODS)
def test_secrets_are_references(name):
    """What is secret comes from a Secret, by name; none is in the manifests."""
    secret = re.compile("PASSWORD|SECRET|KEY_ID|_URI$")
    for container in pod_of(PODS[name])["containers"]:
        for variable in container.get("env", []):
            assert not secret.search(variable["name"]) or "secretKeyRef" in variable["valueFrom"]
    assert not [one for one in OBJECTS if one["kind"] == "Secret"]


def test_server_is_watched():
    """The server has probes of start, readiness and life, and is called by named hosts only."""
    (container,) = pod_of(PODS["mlflow"])["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    (settings,) = (one["data"] for one in OBJECTS if one["metadata"]["name"] == "mlflow-settings")
    hosts = settings["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "*" not in hosts
    assert {"mlflow.damcrack-mlflow", "mlflow.damcrack-mlflow:5000"} <= set(hosts)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl on the PATH")
def test_the_scripts_are_rendered_into_the_manifests():
    """Kustomize names them by their content; `test_manifests` looks at all else that it renders."""
    rendered = subprocess.run(
        ["kubectl", "kustomize", MANIFESTS], capture_output=True, text=True, check=True
    ).stdout
    objects = yaml.safe_load_all(rendered)
    (scripts,) = (one for one in objects if one["metadata"]["name"].startswith("mlflow-scripts-"))
    assert scripts["data"]["serve.sh"] == (MLFLOW / "serve.sh").read_text()
    assert rendered.count(f"name: {scripts['metadata']['name']}") == 3  # itself, server and backup


def test_the_namespace_is_closed_but_for_what_is_named():
    """Nothing in or out by default; the database is reached by its two users, the server from namespaces of ours."""
    policies = {one["metadata"]["name"]: one["spec"] for one in OBJECTS if one["kind"] == "NetworkPolicy"}
    assert policies["nothing-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rules = [rule for one in policies.values() for rule in (*one.get("ingress", []), *one.get("egress", []))]
    assert all(rule.get("ports") and (rule.get("from") or rule.get("to")) for rule in rules)
    outside = [place["ipBlock"] for rule in rules for place in rule.get("to", []) if "ipBlock" in place]
    assert all(one["cidr"] == "169.254.20.10/32" or one["except"] == ["169.254.0.0/16"] for one in outside)
    ((users,),) = [[rule["from"] for rule in policies["mlflow-database"]["ingress"]]]
    assert users[0]["podSelector"]["matchExpressions"][0]["values"] == ["mlflow", "mlflow-backup"]
    assert "egress" not in policies["mlflow-database"]
    for name in PODS:
        labels = (PODS[name]["spec"].get("jobTemplate", PODS[name])["spec"])["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] in policies


def test_compose_file():
    """The compose file takes every secret from the environment, and example settings hold none."""
    services = yaml.safe_load((MLFLOW / "compose.yaml").read_text())["services"]
    for name, value in services["server"]["environment"].items():
        assert not re.search("PASSWORD|SECRET|KEY_ID|_URI$", name) or "${" in value
    assert services["server"]["read_only"]
    example = dict(
        line.split("=", 1) for line in (MLFLOW / "env.example").read_text().splitlines() if line[0] != "#"
    )
    assert not [name for name, value in example.items() if value and re.search("PASSWORD|SECRET|KEY", name)]


def test_job_execution_is_off_and_the_password_cache_on():
    """Settings that cost memory or time when they are forgotten."""
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in (MLFLOW / "serve.sh").read_text()
    assert "auth_cache_ttl_seconds = 60" in (MLFLOW / "basic_auth.ini").read_text()


@pytest.fixture
def postgres(tmp_path_factory):
    """The start of addresses of a real PostgreSQL, which the test's databases are made in and dropped from."""
    if "DAMCRACK_TEST_POSTGRES" in os.environ:
        yield os.environ["DAMCRACK_TEST_POSTGRES"]
    elif TOOL.exists():
        asked = subprocess.run(["pg_isready", "-q", "-h", "127.0.0.1", "-p", "15432"], check=False)
        was_up = asked.returncode == 0
        subprocess.run([TOOL, "start"], check=True, capture_output=True)
        yield "postgresql+psycopg2://mlflow:mlflow@127.0.0.1:15432/"
        if not was_up:
            subprocess.run([TOOL, "stop"], check=True, capture_output=True)
    else:
        pytest.skip("no PostgreSQL: set DAMCRACK_TEST_POSTGRES to postgresql://USER:PASSWORD@HOST:PORT/")


@pytest.mark.slow
def test_postgres_copy_and_restore(postgres, tmp_path):
    """A copy of two PostgreSQL databases fills two empty ones, once; the password is in no argument."""
    psycopg2 = pytest.importorskip("psycopg2", reason='needs pip install "damcrack[server]"')
    plain = postgres.replace("+psycopg2", "")
    admin = psycopg2.connect(f"{plain}postgres")
    admin.autocommit = True
    names = [f"test_{os.getpid()}_{kind}" for kind in ("runs", "accounts", "new_runs", "new_accounts")]

    def ask(database, *words):
        with psycopg2.connect(f"{plain}{database}") as connection, connection.cursor() as cursor:
            for sentence in words:
                cursor.execute(sentence)
            return cursor.fetchall() if cursor.description else []

    def call(script, folder, runs, accounts):
        settings = {"MLFLOW_BACKEND_STORE_URI": postgres + runs, "MLFLOW_ACCOUNTS_URI": postgres + accounts}
        return subprocess.run(
            [MLFLOW / script, folder], env=os.environ | settings, capture_output=True, text=True
        )

    try:
        for name in names:
            admin.cursor().execute(f"create database {name}")
        ask(names[0], "create table runs (name text)", "insert into runs values ('distill')")
        ask(names[1], "create table users (name text)", "insert into users values ('admin')")
        made = call("backup.sh", tmp_path, *names[:2])
        assert made.returncode == 0, made.stderr
        restored = call("restore.sh", made.stdout.strip(), *names[2:])
        assert restored.returncode == 0, restored.stderr
        assert ask(names[2], "select name from runs") == [("distill",)]
        assert ask(names[3], "select name from users") == [("admin",)]
        again = call("restore.sh", made.stdout.strip(), *names[2:])
        assert again.returncode == 1
        assert "holds 1 tables; restore into an empty one" in again.stderr
    finally:
        for name in names:
            admin.cursor().execute(f"drop database if exists {name}")
        admin.close()
