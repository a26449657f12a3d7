"""The components around new imagery. They are defined in the package, so that an installed damcrack has them."""

from damcrack.kubeflow.new_imagery import inspect_new, note_trained, snapshot_new, take_in

__all__ = ["inspect_new", "note_trained", "snapshot_new", "take_in"]
