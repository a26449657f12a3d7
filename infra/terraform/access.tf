# What pods may do: read what arrived; add to what was taken in, never change or remove it; use the DVC remote and the
# runs' artifacts, without removing either.
locals {
  arn = "arn:aws:s3:::${var.bucket}"

  accounts = {
    pods = var.service_accounts
  }
}

data "aws_iam_policy_document" "pods" {
  # Without a condition on the prefix: S3 answers 403 instead of 404 for a missing object to who may not list the bucket.
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [local.arn]
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = [for prefix in ["approved", "incoming", "imagery", "dvc", "mlflow"] : "${local.arn}/${prefix}/*"]
  }

  # Only where there is nothing yet: each object of imagery/ is created once.
  statement {
    sid       = "Create"
    actions   = ["s3:PutObject"]
    resources = ["${local.arn}/imagery/*"]

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["false"]
    }
  }

  statement {
    sid       = "Write"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = [for prefix in ["dvc", "mlflow"] : "${local.arn}/${prefix}/*"]
  }
}

resource "aws_iam_policy" "pods" {
  name        = "${var.name}-pods"
  description = "Bucket access of ${var.name}'s pods."
  policy      = data.aws_iam_policy_document.pods.json
}

# Who approves models: people, not pods. The pods' account moves the alias champion and may rewrite what MLflow holds, the
# hashes too; a model is loaded only if its hash lies under approved/ (docs/promotion.md), where pods write nothing and
# nobody changes or removes anything.
data "aws_iam_policy_document" "approvers" {
  statement {
    sid       = "Approve"
    actions   = ["s3:PutObject"]
    resources = ["${local.arn}/approved/*"]

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["false"]
    }
  }
}

resource "aws_iam_policy" "approvers" {
  name        = "${var.name}-approvers"
  description = "Approves models of ${var.name}; never attach it to an account of pods."
  policy      = data.aws_iam_policy_document.approvers.json
}

data "aws_eks_cluster" "this" {
  count = var.cluster == null ? 0 : 1
  name  = var.cluster.name
}

data "aws_iam_openid_connect_provider" "this" {
  count = var.cluster == null ? 0 : 1
  url   = data.aws_eks_cluster.this[0].identity[0].oidc[0].issuer
}

data "aws_iam_policy_document" "assume" {
  for_each = var.cluster == null ? {} : local.accounts

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [data.aws_iam_openid_connect_provider.this[0].arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${trimprefix(data.aws_iam_openid_connect_provider.this[0].url, "https://")}:sub"
      values   = [for account in each.value : "system:serviceaccount:${var.namespace}:${account}"]
    }

    condition {
      test     = "StringEquals"
      variable = "${trimprefix(data.aws_iam_openid_connect_provider.this[0].url, "https://")}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "pods" {
  count                = var.cluster == null ? 0 : 1
  name                 = "${var.name}-pods"
  assume_role_policy   = data.aws_iam_policy_document.assume["pods"].json
  max_session_duration = 43200 # a long training keeps its session
}

resource "aws_iam_role_policy_attachment" "pods" {
  count      = var.cluster == null ? 0 : 1
  role       = aws_iam_role.pods[0].name
  policy_arn = aws_iam_policy.pods.arn
}
