# Optional: the bucket tells a queue of what arrives, infra/kubernetes/events listens.
data "aws_iam_policy_document" "arrivals" {
  count = var.arrivals_queue ? 1 : 0

  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.arrivals[0].arn]

    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_s3_bucket.this.arn]
    }
  }
}

resource "aws_sqs_queue" "arrivals" {
  count                     = var.arrivals_queue ? 1 : 0
  name                      = "${var.name}-arrivals"
  message_retention_seconds = 3600 # an older event is the poll's
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_policy" "arrivals" {
  count     = var.arrivals_queue ? 1 : 0
  queue_url = aws_sqs_queue.arrivals[0].id
  policy    = data.aws_iam_policy_document.arrivals[0].json
}

resource "aws_s3_bucket_notification" "arrivals" {
  count  = var.arrivals_queue ? 1 : 0
  bucket = aws_s3_bucket.this.id

  queue {
    queue_arn     = aws_sqs_queue.arrivals[0].arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = "incoming/"
  }

  depends_on = [aws_sqs_queue_policy.arrivals]
}

data "aws_iam_policy_document" "events" {
  count = var.arrivals_queue ? 1 : 0

  statement {
    actions   = ["sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:DeleteMessage"]
    resources = [aws_sqs_queue.arrivals[0].arn]
  }
}

resource "aws_iam_role" "events" {
  count              = var.arrivals_queue && var.cluster != null ? 1 : 0
  name               = "${var.name}-events"
  assume_role_policy = data.aws_iam_policy_document.assume["events"].json
}

resource "aws_iam_role_policy" "events" {
  count  = var.arrivals_queue && var.cluster != null ? 1 : 0
  role   = aws_iam_role.events[0].name
  policy = data.aws_iam_policy_document.events[0].json
}
