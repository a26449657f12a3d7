"""Cracks of photos, measured, reported and compared: the part that travels to a site; no torch."""
