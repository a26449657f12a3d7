"""Students of the shipped detector on concrete that they never saw: what a teacher, and unlabelled photos, give."""
