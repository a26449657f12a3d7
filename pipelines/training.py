"""The training pipeline of this checkout, for `kfp dsl compile --py pipelines/training.py` and for reading.

Run it to compile with images and remote of your own: `python pipelines/training.py --help`.
"""

import sys
from pathlib import Path

from damcrack.cli.main import main
from damcrack.kubeflow.pipeline import Setting, training

ROOT = Path(__file__).parents[1]
IMAGES = {"cpu": "damcrack-cpu", "train": "damcrack-train"}

if __name__ == "__main__":
    sys.argv[1:1] = ["pipeline", "compile"]
    main()
else:
    pipeline = training(
        Setting(ROOT, (ROOT / "params.yaml").read_text(), "s3://bucket/dvc", IMAGES, revision="")
    )
