"""Kubeflow components: wrappers of a few statements around the package; the code is in the image."""
