"""Cracks of one photo: from the network's map to lines with their widths, and what speaks for each; no torch."""
