"""Kubeflow tasks: a few statements each around calls of damcrack."""
