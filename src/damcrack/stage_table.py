"""The stages by name: what each reads, and one line about it; the rest is derived from the stage itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage as the command line shows it.

    `inputs` are its path parameters; a trailing "?" marks one that may be absent. `services` are parameters
    that the caller hands in. Its function is damcrack.ROOM.NAME.NAME, its values
    are damcrack.ROOM.config.NAMEConfig.
    """

    name: str
    room: str
    help: str
    inputs: tuple[str, ...]
    has_items: bool = False
    services: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Dotted name of its module."""
        return f"damcrack.{self.room}.{self.name}"


INPUT_HELP = {
    "snapshot": "Names and hashes of the source's files, as `damcrack snapshot` writes them.",
    "photos": "Output folder of `photos`.",
    "images": "Output folder of `miniimagenet`.",
    "tiles": "Output folder of `tile`.",
    "teacher": "Model folder of the teacher, trained on the same images.",
    "init": "Model folder whose weights training starts from; none is from scratch.",
    "models": "Folder with pretrain/, distill/ and finetune/, one model folder per item in each.",
    "model": "Model folder of a crack classifier.",
    "detector": "An ONNX file, a folder that `export` wrote, or models:/NAME@ALIAS of the registry.",
    "evaluation": "Output folder of `evaluate`.",
    "export": "Output folder of `export`.",
}

STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "photos",
            "data",
            "Take photos and crack masks in, check each, set bad ones aside with a reason.",
            ("snapshot",),
            services=("open_source",),
        ),
        Stage(
            "miniimagenet",
            "data",
            "Make the class-balanced pretraining set.",
            ("snapshot",),
            services=("open_source",),
        ),
        Stage("tile", "data", "Cut photos into labelled tiles, balance the classes, split.", ("photos",)),
        Stage(
            "pretrain",
            "train",
            "Train a network on the pretraining set from labels alone.",
            ("images",),
            True,
        ),
        Stage(
            "distill",
            "train",
            "Train the student under the teacher, at fixed or learned temperature.",
            ("images", "teacher"),
            True,
        ),
        Stage(
            "finetune",
            "train",
            "Train a crack classifier, from scratch or from earlier weights.",
            ("tiles", "init?", "teacher?"),
            True,
        ),
        Stage(
            "evaluate",
            "evaluate",
            "Score all crack classifiers; write tables, figures, page.",
            ("tiles", "models"),
        ),
        Stage(
            "export",
            "export",
            "Turn a crack classifier into ONNX and check that it agrees.",
            ("model", "tiles"),
        ),
        Stage(
            "inspect",
            "inspection",
            "Look for cracks in photos; write maps, tables and a report for the engineer.",
            ("photos", "tiles", "model"),
        ),
        Stage(
            "register",
            "registry",
            "Put the exported model into the MLflow registry; make it champion if it is shown to be better.",
            ("photos", "tiles", "evaluation", "export"),
            services=("registry", "open_source"),
        ),
    )
}
