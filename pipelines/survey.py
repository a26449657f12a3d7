"""The pipeline of a survey in parts, for `kfp dsl compile --py pipelines/survey.py` and for reading.

Run it to compile with an image and places of your own: `python pipelines/survey.py --help`.
"""

import sys
from pathlib import Path

from damcrack.cli.main import main
from damcrack.kubeflow.survey import survey
from damcrack.params import read_params

ROOT = Path(__file__).parents[1]

if __name__ == "__main__":
    sys.argv[1:1] = ["pipeline", "compile"]
    main()
else:
    pipeline = survey(
        "damcrack-cpu", read_params(ROOT / "params.yaml"), "s3://bucket/photos", "s3://bucket/survey"
    )
