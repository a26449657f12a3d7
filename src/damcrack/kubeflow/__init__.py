"""The graph of dvc.yaml as Kubeflow pipelines; the only room that knows kfp."""
