"""The callers: command line, params.yaml, storage (boto3), tracking (mlflow)."""
