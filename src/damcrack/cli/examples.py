"""Two examples for each command that takes arguments, shown below its help; a test parses them all."""

import click

EXAMPLES = {
    "": ("demo --open", "inspect photo.jpg --open"),
    "inspect": (
        "inspect photo.jpg --open",
        "inspect left/ right/ --out survey --gsd 0.8",
        "inspect s3://dam/2026-05 --out survey \\\n    --model models:/dam-crack-detector@champion",
        "inspect s3://dam/2026-05 --part 2/4 \\\n    --out s3://dam/survey",
    ),
    "demo": ("demo --open", "demo --out /tmp/demo"),
    "report": (
        "report survey --out signed.pdf",
        'report survey --out signed \\\n    --structure "Left spillway" --inspector "A. Engineer"',
    ),
    "compare": (
        "compare survey-2025 survey-2026 --out changes",
        "compare old new --out changes --pairs pairs.csv",
    ),
    "review": (
        "review survey --out decided",
        "review survey --out decided \\\n    --decisions decisions.json",
    ),
    "export-survey": (
        "export-survey survey --format dxf --out cad",
        "export-survey survey --out files \\\n    --format jpeg --format gpkg",
    ),
    "import-coco": (
        "import-coco instances.json spillway/ --out own",
        "import-coco instances.json a.jpg b.jpg --out own",
    ),
    "init": ("init my-dam", "init ."),
    "photos": (
        "photos --snapshot snapshots/photos.csv \\\n    --out data/photos",
        "photos --snapshot snapshots/photos.csv \\\n    --set sample_photos=10 --out few",
    ),
    "miniimagenet": (
        "miniimagenet --out data/miniimagenet \\\n    --snapshot snapshots/miniimagenet.csv",
        "miniimagenet --set sample_classes=5 --out few \\\n    --snapshot snapshots/miniimagenet.csv",
    ),
    "tile": (
        "tile --photos data/photos --out data/tiles",
        "tile --photos data/photos --set tile_px=224 \\\n    --out tiles-224",
    ),
    "pretrain": (
        "pretrain --item resnet50 \\\n    --images data/miniimagenet --out teacher",
        "pretrain --item resnet18 --set epochs=1 \\\n    --images data/miniimagenet --out short",
    ),
    "distill": (
        "distill --item dynamic --teacher teacher \\\n    --images data/miniimagenet --out student",
        "distill --item fixed --teacher teacher \\\n    --images data/miniimagenet --out at-4",
    ),
    "finetune": (
        "finetune --item resnet18-scratch \\\n    --tiles data/tiles --out model",
        "finetune --item resnet18-dynamic --init student \\\n    --tiles data/tiles --out model",
    ),
    "evaluate": (
        "evaluate --tiles data/tiles --models models \\\n    --out results/evaluate",
        "evaluate --tiles data/tiles --models models \\\n    --set worst_tiles=20 --out page",
    ),
    "export": (
        "export --tiles data/tiles --out results/export \\\n    --model models/finetune/lite0-detector",
        "export --tiles tiles --model model --out onnx",
    ),
    "register": (
        "register --photos data/photos \\\n    --tiles data/tiles \\\n"
        "    --evaluation results/evaluate \\\n    --export results/export --out results/register",
        "register --photos data/photos \\\n    --tiles data/tiles \\\n"
        "    --evaluation results/evaluate --export onnx \\\n    --set model_name=trial --out trial",
    ),
    "check": ("check", "check params/paper.yaml"),
    "snapshot": ("snapshot photos", "snapshot miniimagenet"),
    "summary": ("summary",),
    "tiles-to-folders": (
        "tiles-to-folders --tiles data/tiles --out folders",
        "tiles-to-folders --tiles tiles-224 --out f224",
    ),
    "track": ("track send",),
    "track send": ("track send",),
    "ui": ("ui", "ui --port 5001"),
    "promote": (
        "promote 7",
        "promote dam-crack-detector   # its challenger",
        "promote 7 --sha256 4f6c... --set min_gain=0.01 \\\n    --evaluation-set s3://dam/evaluation-2026",
    ),
    "rollback": (
        'rollback --reason "missed a crack at block 12"',
        'rollback --to 5 --reason "too many false alarms"',
    ),
    "history": ("history", "history --json"),
    "lineage": (
        "lineage dam-crack-detector@champion",
        "lineage spillway/DSC01234.jpg",
    ),
    "freeze": (
        "freeze --photos data/photos --tiles data/tiles \\\n    --out evaluation-2026",
        "freeze --photos p --tiles t --out evaluation",
    ),
    "registered": ("registered", "registered results/register"),
    "completion": ("completion bash >> ~/.bashrc", "completion fish > damcrack.fish"),
    "imagery": (
        "imagery take-in",
        "imagery inspect --model shipped",
        "imagery snapshot",
    ),
    "imagery take-in": ("imagery take-in", "imagery take-in --outcome next.json"),
    "imagery inspect": (
        "imagery inspect --model shipped",
        "imagery inspect --set gsd_mm_per_px=0.8 \\\n    --model models:/dam-crack-detector@champion",
    ),
    "imagery snapshot": ("imagery snapshot", "imagery snapshot --number 3"),
    "imagery trained": ("imagery trained 3", "imagery trained 3 --config imagery.yaml"),
    "imagery status": ("imagery status", "imagery status --config imagery.yaml"),
    "pipeline": (
        "pipeline check",
        "pipeline compile --remote s3://dam/dvc \\\n    --cpu-image NAME@sha256:... \\\n"
        "    --train-image NAME@sha256:...",
    ),
    "pipeline check": ("pipeline check", "pipeline check --namespace dam-team"),
    "pipeline compile": (
        "pipeline compile --remote s3://dam/dvc \\\n    --cpu-image NAME@sha256:... \\\n"
        "    --train-image NAME@sha256:...",
        "pipeline compile --remote s3://dam/dvc \\\n    --imagery imagery.yaml --out arrivals.yaml \\\n"
        "    --cpu-image NAME@sha256:... \\\n    --train-image NAME@sha256:...",
    ),
    "pipeline submit": (
        "pipeline submit --remote s3://dam/dvc \\\n    --cpu-image NAME@sha256:... \\\n"
        "    --train-image NAME@sha256:...",
        "pipeline submit --cpu-image NAME@sha256:... \\\n    --survey s3://dam/2026-05 s3://dam/survey-2026-05",
        "pipeline submit --params params/paper.yaml \\\n    --remote s3://dam/dvc --name paper \\\n"
        "    --cpu-image NAME@sha256:... \\\n    --train-image NAME@sha256:...",
    ),
    "pipeline schedule": (
        'pipeline schedule --cron "0 0 3 * * 1" \\\n    --name weekly --remote s3://dam/dvc \\\n'
        "    --cpu-image NAME@sha256:... \\\n    --train-image NAME@sha256:...",
        'pipeline schedule --cron "0 */15 * * * *" \\\n    --name arrivals --imagery imagery.yaml \\\n'
        "    --remote s3://dam/dvc \\\n    --cpu-image NAME@sha256:... \\\n    --train-image NAME@sha256:...",
    ),
    "pipeline stop": ("pipeline stop RUN", "pipeline stop 9f0c... --namespace dam-team"),
    "pipeline status": ("pipeline status", "pipeline status --limit 3"),
}  # fmt: skip


def add_examples(cli: click.Group) -> None:
    """Show each command's examples below its help."""
    for path, examples in EXAMPLES.items():
        command: click.Command = cli
        for name in path.split():
            assert isinstance(command, click.Group)
            command = command.commands[name]
        lines = "\n".join(f"damcrack {example}" for example in examples)
        command.epilog = f"\b\nExamples:\n{lines}"
