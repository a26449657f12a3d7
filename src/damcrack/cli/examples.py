"""Two examples for each command that takes arguments, shown below its help; a test parses them all."""

import re

IMAGES = "--cpu-image NAME@sha256:... --train-image NAME@sha256:..."
EXAMPLES = f"""
inspect photo.jpg --open
inspect left/ right/ --out survey --gsd 0.8
inspect s3://dam/2026-05 --out survey --model models:/dam-crack-detector@champion
inspect s3://dam/2026-05 --part 2/4 --out s3://dam/survey
demo --open
demo --out /tmp/demo
report survey --out signed.pdf
report survey --out signed --structure "Left spillway" --inspector "A. Engineer"
compare survey-2025 survey-2026 --out changes
compare old new --out changes --pairs pairs.csv
review survey --out decided
review survey --out decided --decisions decisions.json
export-survey survey --format dxf --out cad
export-survey survey --out files --format jpeg --format gpkg
import-coco instances.json spillway/ --out own
import-coco instances.json a.jpg b.jpg --out own
init my-dam
init .
photos --snapshot snapshots/photos.csv --out data/photos
photos --snapshot snapshots/photos.csv --set sample_photos=10 --out few
miniimagenet --out data/miniimagenet --snapshot snapshots/miniimagenet.csv
miniimagenet --set sample_classes=5 --out few --snapshot snapshots/miniimagenet.csv
tile --photos data/photos --out data/tiles
tile --photos data/photos --set tile_px=224 --out tiles-224
pretrain --item resnet50 --images data/miniimagenet --out teacher
pretrain --item resnet18 --set epochs=1 --images data/miniimagenet --out short
distill --item dynamic --teacher teacher --images data/miniimagenet --out student
distill --item fixed --teacher teacher --images data/miniimagenet --out at-4
finetune --item resnet18-scratch --tiles data/tiles --out model
finetune --item resnet18-dynamic --init student --tiles data/tiles --out model
evaluate --tiles data/tiles --models models --out results/evaluate
evaluate --tiles data/tiles --models models --set worst_tiles=20 --out page
export --tiles data/tiles --out results/export --model models/finetune/lite0-detector
export --tiles tiles --model model --out onnx
register --photos data/photos --tiles data/tiles --evaluation results/evaluate --export onnx --out results
register --photos photos --tiles tiles --evaluation scores --export onnx --set model_name=trial --out trial
check
check params/paper.yaml
snapshot photos
snapshot miniimagenet
summary
tiles-to-folders --tiles data/tiles --out folders
tiles-to-folders --tiles tiles-224 --out f224
track send
ui
ui --port 5001
promote 7
promote dam-crack-detector   # its challenger
promote 7 --sha256 4f6c... --set min_gain=0.01 --evaluation-set s3://dam/evaluation-2026
rollback --reason "missed a crack at block 12"
rollback --to 5 --reason "too many false alarms"
history
history --json
lineage dam-crack-detector@champion
lineage spillway/DSC01234.jpg
freeze --photos data/photos --tiles data/tiles --out evaluation-2026
freeze --photos p --tiles t --out evaluation
registered
registered results/register
completion bash >> ~/.bashrc
completion fish > damcrack.fish
imagery take-in
imagery take-in --outcome next.json
imagery inspect --model shipped
imagery inspect --set gsd_mm_per_px=0.8 --model models:/dam-crack-detector@champion
imagery snapshot
imagery snapshot --number 3
imagery trained 3
imagery trained 3 --config imagery.yaml
imagery status
imagery status --config imagery.yaml
pipeline check
pipeline check --namespace dam-team
pipeline compile --remote s3://dam/dvc {IMAGES}
pipeline compile --remote s3://dam/dvc --imagery imagery.yaml --out arrivals.yaml {IMAGES}
pipeline submit --remote s3://dam/dvc {IMAGES}
pipeline submit --cpu-image NAME@sha256:... --survey s3://dam/2026-05 s3://dam/survey-2026-05
pipeline submit --params params/paper.yaml --remote s3://dam/dvc --name paper {IMAGES}
pipeline schedule --cron "0 0 3 * * 1" --name weekly --remote s3://dam/dvc {IMAGES}
pipeline schedule --cron "0 */15 * * * *" --name arrivals --imagery imagery.yaml --remote s3://dam/dvc {IMAGES}
pipeline stop RUN
pipeline stop 9f0c... --namespace dam-team
pipeline status
pipeline status --limit 3
""".strip().splitlines()


def wrapped(example: str, width: int = 52) -> str:
    """An example as it is typed in a narrow terminal, broken before options."""
    lines = [""]
    for words in re.split(" (?=--)", f"damcrack {example}"):
        fits = len(lines[-1]) + len(words) < width
        lines[-1:] = [f"{lines[-1]} {words}".lstrip()] if fits else [lines[-1], words]
    return " \\\n    ".join(lines)
