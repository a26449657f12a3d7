"""Kubeflow components: wrappers of a few statements around `damcrack.edges`; the code is in the image."""
