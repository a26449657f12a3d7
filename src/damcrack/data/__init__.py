"""Photos in, labelled tiles out: reading, layouts, the image set; no torch."""
