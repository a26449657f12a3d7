"""The recurring pipeline around new imagery, for `kfp dsl compile --py pipelines/new_imagery.py` and for reading.

Run it to compile with images, remote and imagery.yaml of your own: `python pipelines/new_imagery.py --help`.
"""

import sys
from pathlib import Path

from damcrack.cli.main import main
from damcrack.kubeflow.new_imagery import new_imagery
from damcrack.kubeflow.pipeline import Setting

ROOT = Path(__file__).parents[1]
IMAGES = {"cpu": "damcrack-cpu", "train": "damcrack-train"}

if __name__ == "__main__":
    sys.argv[1:1] = ["pipeline", "compile", "--imagery", str(ROOT / "imagery.yaml")]
    main()
else:
    setting = Setting(ROOT, (ROOT / "params.yaml").read_text(), "s3://bucket/dvc", IMAGES, revision="")
    pipeline = new_imagery(setting, (ROOT / "imagery.yaml").read_text())
