"""Photographs of concrete dams in, a small distilled crack detector out."""

import os

__version__ = "0.1.0"

# onnxruntime 1.32 sends usage events to its makers and keeps a number of the machine in ~/.cache; it reads this when
# it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
