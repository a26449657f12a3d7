"""The paper's experiments over seeds and numbers of labels, compared with its claims."""
