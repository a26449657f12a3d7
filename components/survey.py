"""The components of a survey in parts. They are defined in the package, so that an installed damcrack has them."""

from damcrack.kubeflow.survey import cut_survey, inspect_part, write_survey

__all__ = ["cut_survey", "inspect_part", "write_survey"]
