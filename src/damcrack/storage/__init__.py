"""Where photos lie: a folder or s3://bucket/prefix; the only room that knows boto3."""
