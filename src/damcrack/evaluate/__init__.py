"""How good the trained classifiers are: scores, baselines, figures, the page."""
