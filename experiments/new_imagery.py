"""From an empty bucket to a registered detector by photos that arrive: the pipeline of new imagery with the real graph.

    python -m experiments.new_imagery --place s3://bucket/prefix --model detector.onnx

Four runs as processes of this machine, with S3 (AWS_*) and an MLflow store of their own: nothing there; eight photos
with masks, inspected with `--model`, trained on and registered; one photo more, inspected with the champion; nothing
new.
Prints the tasks of each run and ends with an error if they are not these. The graph is as small as it can be.
"""

import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import click
import yaml
from kfp import local

from damcrack.data.mask import encode_mask
from damcrack.sample.concrete import encode_photo, render_photo
from damcrack.storage.source import open_store
from damcrack.tracking.store import Store, experiment_name
from pipelines.new_imagery import new_imagery
from pipelines.smallest import smallest
from pipelines.training import Setting

SIZE_HW = (448, 672)
CHAMPION = "models:/dam-crack-detector@champion"
AROUND = {"take-in", "inspect-new", "snapshot-new", "note-trained"}


def deliver(place: str, index: int, labelled: bool) -> None:
    """A surveyor uploads a photo."""
    rendered, incoming = render_photo(7, index, SIZE_HW), open_store(f"{place}/incoming")
    incoming.create(f"wall/{index}.jpg", encode_photo(rendered.rgb, index))
    if labelled:
        incoming.create(f"wall/masks/{index}.png", encode_mask(rendered.mask))


def run(setting: Setting, imagery_yaml: str, model: str, root: Path) -> set[str]:
    """One run of the pipeline; the names of the tasks that ended well, the graph's as one."""
    began = time.monotonic()
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    new_imagery(setting, imagery_yaml)(model=model)
    ran = {path.parent.name for path in root.rglob("executor_output.json")}
    around = ran & AROUND
    click.echo(f"{time.monotonic() - began:.0f} s: {sorted(around)} and {len(ran - AROUND)} of the graph")
    return around | ({"the graph"} if ran - AROUND else set())


@click.command()
@click.option("--place", required=True, help="Empty s3://bucket/prefix.")
@click.option("--model", required=True, help="Detector to inspect with while there is no champion.")
@click.option("--remote", help="DVC remote; default: PLACE/dvc. One that was used before restores the graph.")
def main(place: str, model: str, remote: str | None) -> None:
    """Run four times, with deliveries between."""
    place = place.rstrip("/")
    values = {"incoming": f"{place}/incoming", "store": f"{place}/imagery"}
    imagery_yaml = yaml.safe_dump({**values, "train_after_labels": 6, "min_side_px": 200})
    params = smallest(Path.cwd())
    params["photos"]["sources"] = {"incoming": f"{place}/imagery/accepted"}
    values = yaml.safe_dump(params)
    setting = Setting(Path.cwd(), values, remote or f"{place}/dvc", {"cpu": "none", "train": "none"}, "none")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        uri = f"sqlite:///{root}/mlflow.db"
        os.environ |= {"MLFLOW_TRACKING_URI": uri, "DAMCRACK_CHECKOUT": str(Path.cwd())}
        with chdir(root):  # the tasks' own folders go with them, and artifacts must not
            Store(uri).experiment_id(experiment_name())
        found = [run(setting, imagery_yaml, model, root / "1")]
        for index in range(8):
            deliver(place, index, labelled=True)
        found.append(run(setting, imagery_yaml, str(Path(model).absolute()), root / "2"))
        deliver(place, 8, labelled=False)
        found += [run(setting, imagery_yaml, CHAMPION, root / name) for name in ("3", "4")]
    expected = [{"take-in"}, AROUND | {"the graph"}, {"take-in", "inspect-new"}, {"take-in"}]
    if found != expected:
        raise SystemExit(f"tasks {found}, expected {expected}")
    click.echo("all as expected")


if __name__ == "__main__":
    main()
