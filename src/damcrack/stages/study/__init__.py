"""The paper's experiments over seeds and numbers of labels: cells read, compared, and told in tables and words."""
