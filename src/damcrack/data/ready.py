"""Take ready-made tiles in as an image set; the tile stage brings them to its size and splits them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from damcrack.data.imageset import ImageSetWriter
from damcrack.data.layouts import SetAside, TileFile
from damcrack.data.photo import decode_photo, encode_jpeg, is_plain_jpeg, within_memory
from damcrack.data.snapshot import FixedSource
from damcrack.files import PhotoError, in_order
from damcrack.run import Run

CLASSES = ("no crack", "crack")


@dataclass(frozen=True)
class ReadyTile:
    """A checked tile as it goes into the set."""

    file: TileFile
    jpeg: bytes
    size_hw: tuple[int, int]


def take_tiles(
    files: Sequence[TileFile], fixed: Mapping[str, FixedSource], root: Path, max_pixels: int, run: Run
) -> tuple[int, list[SetAside]]:
    """Write the good tiles to an image set at `root`, if there are any; return their number and the rest.

    The split is left empty. Sizes may differ: each row has its own, set.json the commonest.
    """
    set_aside = []
    writer: ImageSetWriter | None = None
    checked = in_order(lambda file: _checked(file, fixed[file.source], max_pixels), files)
    for tile in run.track(checked, "checking ready tiles", len(files)) if files else ():
        if isinstance(tile, SetAside):
            set_aside.append(tile)
        else:
            writer = writer or ImageSetWriter(root)
            _add(writer, tile)
    if writer is None:
        return 0, set_aside
    writer.finish("tiles.csv", CLASSES, _commonest_size(writer))
    return len(writer.rows), set_aside


def _checked(file: TileFile, source: FixedSource, max_pixels: int) -> ReadyTile | SetAside:
    try:
        with within_memory():
            encoded = source.read(file.name)
            rgb = decode_photo(encoded, max_pixels)
            # An RGB JPEG stays as it is, so that no tile loses quality twice.
            jpeg = encoded if is_plain_jpeg(encoded) else encode_jpeg(rgb)
    except PhotoError as error:
        return SetAside(file.source, file.name, str(error))
    return ReadyTile(file, jpeg, (rgb.shape[0], rgb.shape[1]))


def _add(writer: ImageSetWriter, tile: ReadyTile) -> None:
    writer.add(
        f"{len(writer.rows):06d}.jpg",
        tile.jpeg,
        label=tile.file.label,
        split="",
        photo=f"{tile.file.source}/{tile.file.name}",
        source=tile.file.source,
        group=tile.file.group,
        height_px=tile.size_hw[0],
        width_px=tile.size_hw[1],
    )


def _commonest_size(writer: ImageSetWriter) -> tuple[int, int]:
    sizes = Counter((int(row["height_px"]), int(row["width_px"])) for row in writer.rows)
    return min(sizes, key=lambda size_hw: (-sizes[size_hw], size_hw))
