"""Promotion by evidence: the frozen evaluation set, the contest on it, the decision and the model card."""
