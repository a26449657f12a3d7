"""Stage `tiles-to-folders`: the paper's layout, one folder of JPEGs per split and class."""

from pathlib import Path

from damcrack.data.imageset import UNLABELLED, ImageSet
from damcrack.files import check_output, new_directory
from damcrack.run import Run

KIND = "tiles-to-folders"


def tiles_to_folders(tiles: Path, out: Path, run: Run) -> dict[str, object]:
    """Write every image of a set to OUT/<split>/<class>/<key>, bytes unchanged; spaces in classes become "-".

    Tiles without a label lie in OUT/unlabelled.

    Raises:
        InputError: `tiles` is no image set, or its shards do not fit its index.
    """
    check_output(out, KIND)
    images = ImageSet.open(tiles)
    folders = [name.replace(" ", "-") for name in images.classes]
    with new_directory(out, KIND) as root:
        for split in sorted({row["split"] for row in images.rows}):
            for folder in folders if split != UNLABELLED else [""]:
                (root / split / folder).mkdir(parents=True)
        for number, encoded in run.track(images.encoded(), "writing tiles", len(images)):
            row, label = images.rows[number], images.labels[number]
            place = root / row["split"] / (folders[label] if label >= 0 else "")
            (place / row["key"]).write_bytes(encoded)
    return {"tiles": len(images), "written": str(out)}
