"""The components of the training pipeline. They are defined in the package, so that an installed damcrack has them."""

from damcrack.kubeflow.pipeline import join_lock, run_stage

__all__ = ["join_lock", "run_stage"]
