"""The parts of stage `evaluate`: which models there are, how they score, tables, figures and the page."""
