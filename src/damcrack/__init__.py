"""Photographs of concrete dams in, a small distilled crack detector out."""

__version__ = "0.1.0"
