"""Equations and geometry: torch and numpy in, torch and numpy out; no files, no state."""
