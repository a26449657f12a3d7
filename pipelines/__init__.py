"""Kubeflow pipelines, built from dvc.yaml, and how they are submitted, scheduled and looked at."""
