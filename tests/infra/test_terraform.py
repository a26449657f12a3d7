"""infra/terraform as the tool itself sees it: formatted, valid, and what it plans; nothing is asked of any cloud."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[2] / "infra/terraform"
# Where provider mirrors usually lie.
MIRRORS = [Path(os.environ["DAMCRACK_TF_PLUGINS"])] if "DAMCRACK_TF_PLUGINS" in os.environ else []
MIRRORS += [
    Path(place) / name
    for place in ("/opt", "/usr/share", "/usr/local/share", Path.home() / ".terraform.d")
    for name in ("tf-plugins", "terraform/plugins", "plugins")
]
OFFLINE = """
provider "aws" {
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}
"""


def terraform(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["terraform", *words],
        cwd=folder,
        env={**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A copy with the provider from a mirror on this machine."""
    if shutil.which("terraform") is None:
        pytest.skip("needs terraform on the PATH")
    mirror = next((path for path in MIRRORS if any(path.glob("*/hashicorp/aws"))), None)
    if mirror is None:
        pytest.skip("needs a mirror of the aws provider: set DAMCRACK_TF_PLUGINS to its folder")
    copy: Path = tmp_path_factory.mktemp("terraform")
    for path in SOURCE.glob("*.tf"):
        shutil.copy(path, copy)
    (copy / "offline_override.tf").write_text(OFFLINE)
    terraform(copy, "init", "-backend=false", f"-plugin-dir={mirror}")
    return copy


@pytest.fixture(scope="module")
def planned(folder: Path) -> dict[str, Any]:
    """Address -> planned values, for a bucket without a cluster."""
    values = ["-var=bucket=dam", "-var=incoming_days=60"]
    terraform(folder, "plan", "-refresh=false", "-input=false", "-out=plan", *values)
    plan = json.loads(terraform(folder, "show", "-json", "plan"))
    return {
        one["address"]: one.get("values", {}) for one in plan["planned_values"]["root_module"]["resources"]
    }


def test_it_is_formatted_and_valid(folder: Path) -> None:
    """By terraform itself, with the real provider."""
    terraform(SOURCE, "fmt", "-check", "-recursive")
    assert json.loads(terraform(folder, "validate", "-json"))["valid"]


def test_the_bucket_is_versioned_encrypted_and_closed(planned: dict[str, Any]) -> None:
    """Nothing in it is public, nothing is lost by overwriting, and only TLS reaches it."""
    (versioning,) = planned["aws_s3_bucket_versioning.this"]["versioning_configuration"]
    assert versioning["status"] == "Enabled"
    closed = planned["aws_s3_bucket_public_access_block.this"]
    assert all(value for key, value in closed.items() if key.startswith(("block", "ignore", "restrict")))
    (rule,) = planned["aws_s3_bucket_server_side_encryption_configuration.this"]["rule"]
    assert rule["apply_server_side_encryption_by_default"][0]["sse_algorithm"] == "AES256"
    (denied,) = json.loads(planned["aws_s3_bucket_policy.this"]["policy"])["Statement"]
    assert (denied["Effect"], denied["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_photos_never_expire_but_where_they_arrived(planned: dict[str, Any]) -> None:
    """What was taken in stays; old versions and, if wished, arrived copies go."""
    rules = planned["aws_s3_bucket_lifecycle_configuration.this"]["rule"]
    expiring = {
        rule["filter"][0]["prefix"]: rule["expiration"][0]["days"] for rule in rules if rule["expiration"]
    }
    assert expiring == {"incoming/": 60}


def listed(value: Any) -> list[Any]:
    """What IAM writes without brackets where it is one."""
    return value if isinstance(value, list) else [value]


def statements_of(planned: dict[str, Any], policy: str) -> list[dict[str, Any]]:
    return listed(json.loads(planned[f"aws_iam_policy.{policy}"]["policy"])["Statement"])


def test_pods_can_add_and_not_remove(planned: dict[str, Any]) -> None:
    """No delete, no star; under imagery/ only objects that are not there yet, and nothing under incoming/."""
    statements = statements_of(planned, "pods")
    actions = {action for one in statements for action in listed(one["Action"])}
    assert actions == {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"}
    writing = [one for one in statements if "s3:PutObject" in one["Action"]]
    places = {place for one in writing for place in listed(one["Resource"])}
    assert places == {f"arn:aws:s3:::dam/{prefix}/*" for prefix in ("imagery", "dvc", "mlflow")}
    (create,) = [one for one in writing if one["Sid"] == "Create"]
    assert create["Condition"] == {"Null": {"s3:if-none-match": "false"}}


def test_who_runs_models_cannot_approve_them(planned: dict[str, Any]) -> None:
    """Pods read approved/ and write elsewhere; who approves does nothing else, and changes nothing that is there."""
    place = "arn:aws:s3:::dam/approved/*"
    for one in statements_of(planned, "pods"):
        assert place not in listed(one["Resource"]) or one["Action"] == "s3:GetObject"
    (approve,) = statements_of(planned, "approvers")
    assert (approve["Action"], approve["Resource"]) == ("s3:PutObject", place)
    assert approve["Condition"] == {"Null": {"s3:if-none-match": "false"}}
