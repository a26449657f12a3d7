"""The stages by name: what each reads, and one line about it; the rest is derived from the stage itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage as the command line shows it.

    `inputs` names its path parameters; a "?" marks one that may be absent. Its function is damcrack.ROOM.NAME.NAME,
    its values are damcrack.ROOM.config.NAMEConfig; a stage that trains has items.
    """

    name: str
    room: str
    inputs: str
    help: str

    @property
    def has_items(self) -> bool:
        """Whether its section has several, of which a call runs one."""
        return self.room == "train"

    @property
    def options(self) -> dict[str, bool]:
        """Its inputs by name; whether each may be absent."""
        return {name.rstrip("?"): name.endswith("?") for name in self.inputs.split()}

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
    one.name: one
    for one in (
        Stage("photos", "data", "snapshot", "Take photos and crack masks in; set bad ones aside with a reason."),
        Stage("miniimagenet", "data", "snapshot", "Make the class-balanced pretraining set."),
        Stage("tile", "data", "photos", "Cut photos into labelled tiles, balance the classes, split."),
        Stage("pretrain", "train", "images", "Train a network on the pretraining set from labels alone."),
        Stage("distill", "train", "images teacher",
              "Train the student under its teacher, at fixed or learned temperature."),
        Stage("finetune", "train", "tiles init? teacher?",
              "Train a crack classifier, from scratch or from earlier weights."),
        Stage("evaluate", "evaluate", "tiles models", "Score all crack classifiers; write tables, figures, page."),
        Stage("export", "export", "model tiles", "Turn a crack classifier into ONNX and check that it agrees."),
        Stage("inspect", "inspection", "photos tiles model",
              "Look for cracks in photos; write maps, tables and a report for the engineer."),
        Stage("register", "registry", "photos tiles evaluation export",
              "Put the exported model into the MLflow registry; make it champion if it is shown to be better."),
    )
}  # fmt: skip
