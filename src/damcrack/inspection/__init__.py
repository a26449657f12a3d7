"""Surveys of many photos: taken in, reported, decided on, signed, compared; what travels to a site; no torch."""
