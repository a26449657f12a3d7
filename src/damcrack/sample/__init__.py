"""The built-in sample: rendered concrete with exact crack masks, and natural-looking classes."""
