"""Crack pixels, lengths and widths from a photo and what a network says of its blocks; numpy and OpenCV only."""
