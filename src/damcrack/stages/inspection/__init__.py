"""Parts of the stage `inspect`: the model, the photos, one photo, the survey, its files and its page; no torch."""
