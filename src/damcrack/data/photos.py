"""Take photos and masks in: check each, keep the bad ones apart with a reason.

OUT/photos.csv                   one row per photo
OUT/photos/SOURCE/NAME           original bytes
OUT/masks/SOURCE/STEM.png        one-bit grey, white = crack, as large as the upright photo
OUT/ready/                       ready tiles as an image set, if a source has any
OUT/quarantine.csv               what was set aside, and why
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from damcrack.data.config import SAMPLE, PhotosConfig
from damcrack.data.imageset import CLASSES, ImageSetWriter
from damcrack.data.layouts import PhotoFile, SetAside, TileFile, read_layouts, write_quarantine
from damcrack.data.photo import (
    Pixels,
    decode_mask,
    decode_photo,
    encode_jpeg,
    encode_mask,
    is_plain_jpeg,
    within_memory,
)
from damcrack.data.snapshot import FixedSource, OpenSource, open_fixed
from damcrack.files import (
    InputError,
    PhotoError,
    in_order,
    new_directory,
    sha256_bytes,
    sha256_file,
    write_csv,
)
from damcrack.run import Run

COLUMNS = ("photo", "source", "group", "file", "mask", "height_px", "width_px", "sha256")

MOST_CRACK = 0.5  # cracks are thin: with more, black and white are exchanged, or it is no mask
NEARLY, MASK_SHARE = 16, 0.98  # grey values so near to black or white in so large a share are those of a mask

Row = dict[str, Any]


def photos(
    snapshot: Path, out: Path, config: PhotosConfig, open_source: OpenSource, run: Run
) -> dict[str, object]:
    """Fill `out` (see above) from the sample and from what `snapshot` lists of each other source.

    Of photos with the same bytes one is kept, a labelled one if there is any; ready tiles keep their copies,
    because the tile stage keeps those on one side of the split, unless the copies carry both labels.

    Raises:
        InputError: a source does not hold what the snapshot says, or nothing usable is left.
        OSError: the disk is full.
    """
    fixed = open_fixed(snapshot, config.sources, open_source, "photos")
    layout = read_layouts(fixed, config.ready_tile_block)
    with new_directory(out, "photos") as folder:
        rows, bad_photos = _take_photos(layout.photos, fixed, folder, config, run)
        num_ready, bad_tiles = _take_tiles(layout.tiles, fixed, folder / "ready", config.max_pixels, run)
        set_aside = [*layout.set_aside, *bad_photos, *bad_tiles]
        _refuse_nothing(len(rows) + num_ready, set_aside, layout.num_ignored)
        write_csv(folder / "photos.csv", COLUMNS, sorted(rows, key=lambda row: str(row["photo"])))
        write_quarantine(folder, set_aside)
        digest = sha256_file(folder / "photos.csv")
    run.dataset("photos", digest, ", ".join(sorted(config.sources.values())), "training")
    num_labelled = sum(bool(row["mask"]) for row in rows)
    return {
        "photos": len(rows),
        "with mask": num_labelled,
        "unlabelled": len(rows) - num_labelled,
        "ready tiles": num_ready,
        "set aside": f"{len(set_aside)}, reasons in {out / 'quarantine.csv'}" if set_aside else 0,
        "other files, left alone": layout.num_ignored,
    }


def _take_photos(
    files: Sequence[PhotoFile],
    fixed: Mapping[str, FixedSource],
    folder: Path,
    config: PhotosConfig,
    run: Run,
) -> tuple[list[Row], list[SetAside]]:
    taken = in_order(lambda file: _take_photo(file, fixed[file.source], folder, config), files)
    results = list(run.track(taken, "checking photos", len(files)) if files else ())
    rows = [result for result in results if not isinstance(result, SetAside)]
    for name in (name for name, uri in config.sources.items() if uri == SAMPLE):
        rows += _render_sample(name, folder, config, run)
    return rows, [result for result in results if isinstance(result, SetAside)]


def _take_photo(file: PhotoFile, source: FixedSource, folder: Path, config: PhotosConfig) -> Row | SetAside:
    try:
        with within_memory():
            encoded = source.read(file.name)
            encoded_mask = None if file.mask is None else source.read(file.mask)
            rgb = checked_photo(encoded, config.min_side_px, config.max_pixels)
            _refuse_mask(rgb)
            size_hw = rgb.shape[:2]
            mask = None if encoded_mask is None else checked_mask(encoded_mask, size_hw, config.max_pixels)
    except PhotoError as error:
        return SetAside(file.source, file.name, str(error))
    return _store(file, encoded, mask, size_hw, folder)


def checked_photo(encoded: bytes, min_side_px: int, max_pixels: int) -> Pixels:
    """RGB (H, W, 3) of a photo, upright.

    Raises:
        PhotoError: it does not decode, or is too small or too large.
    """
    rgb = decode_photo(encoded, max_pixels)
    height, width, _ = rgb.shape
    if min(height, width) < min_side_px:
        raise PhotoError(
            f"{width} x {height} pixels, expected at least {min_side_px} on each side; "
            "leave it out or lower min_side_px"
        )
    return rgb


def checked_mask(encoded: bytes, size_hw: tuple[int, ...], max_pixels: int) -> bytes:
    """The mask of a photo of that size as a one-bit PNG.

    Raises:
        PhotoError: it does not decode, has another size, or marks most of the photo.
    """
    try:
        mask = decode_mask(encoded, max_pixels)
    except PhotoError as error:
        raise PhotoError(f"its mask: {error}") from error
    if mask.shape != size_hw:
        raise PhotoError(
            f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, expected {size_hw[1]} x {size_hw[0]} "
            "as the upright photo; export the mask in the photo's size"
        )
    share = np.count_nonzero(mask) / mask.size
    if share > MOST_CRACK:
        raise PhotoError(
            f"its mask marks {share:.0%} of the photo as crack, expected at most {MOST_CRACK:.0%}, white on black; "
            "invert the mask, or leave the photo out"
        )
    return encode_mask(mask)


def _refuse_mask(rgb: Pixels) -> None:
    """Refuse a picture (H, W, 3) that is a mask; each fourth pixel of each fourth row tells."""
    sampled = rgb[::4, ::4]
    extreme = np.count_nonzero((sampled < NEARLY) | (sampled > 255 - NEARLY)) / sampled.size
    if extreme > MASK_SHARE:
        raise PhotoError(
            "all of it is black or white, as in a mask, expected a photo; "
            "put a mask into masks/ under the name of its photo"
        )


def _store(
    file: PhotoFile, encoded: bytes, mask_png: bytes | None, size_hw: tuple[int, ...], folder: Path
) -> Row:
    place = PurePosixPath("photos", file.source, file.name)
    mask_place = PurePosixPath("masks", file.source, file.name).with_suffix(".png")
    _write(folder / place, encoded)
    if mask_png is not None:
        _write(folder / mask_place, mask_png)
    return {
        "photo": f"{file.source}/{file.name}",
        "source": file.source,
        "group": file.group,
        "file": str(place),
        "mask": "" if mask_png is None else str(mask_place),
        "height_px": size_hw[0],
        "width_px": size_hw[1],
        "sha256": sha256_bytes(encoded),
    }


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _render_sample(source: str, folder: Path, config: PhotosConfig, run: Run) -> list[Row]:
    from damcrack.sample.concrete import encode_photo, render_photo

    def render(index: int) -> Row:
        photo = render_photo(config.sample_seed, index, config.sample_size_hw)
        name = f"{index:05d}.jpg"
        file = PhotoFile(source, name, name, f"{source}/{name}")
        encoded, mask_png = encode_photo(photo.rgb, index), encode_mask(photo.mask)
        return _store(file, encoded, mask_png, config.sample_size_hw, folder)

    rendered = in_order(render, range(config.sample_photos))
    return list(run.track(rendered, "rendering the sample", config.sample_photos))


def _take_tiles(
    files: Sequence[TileFile], fixed: Mapping[str, FixedSource], root: Path, max_pixels: int, run: Run
) -> tuple[int, list[SetAside]]:
    """Write the good tiles to an image set at `root`, if there are any; return their number and the rest.

    The split is left empty. Sizes may differ: each row has its own, set.json the commonest.
    """
    if not files:
        return 0, []
    checked = in_order(lambda file: _checked_tile(file, fixed[file.source], max_pixels), files)
    set_aside, sizes = list[SetAside](), Counter[tuple[int, int]]()
    writer: ImageSetWriter | None = None
    for file, tile in zip(files, run.track(checked, "checking ready tiles", len(files)), strict=True):
        if isinstance(tile, SetAside):
            set_aside.append(tile)
            continue
        writer = writer or ImageSetWriter(root)
        jpeg, (height, width) = tile
        columns: Row = {"photo": f"{file.source}/{file.name}", "source": file.source, "group": file.group}
        columns |= {"height_px": height, "width_px": width}
        writer.add(f"{len(writer.rows):06d}.jpg", jpeg, label=file.label, split="", **columns)
        sizes[height, width] += 1
    if writer:
        writer.finish("tiles.csv", CLASSES, min(sizes, key=lambda size_hw: (-sizes[size_hw], size_hw)))
    return sizes.total(), set_aside


def _checked_tile(
    file: TileFile, source: FixedSource, max_pixels: int
) -> tuple[bytes, tuple[int, ...]] | SetAside:
    """The JPEG of a tile as it goes into the set, with its height and width."""
    try:
        with within_memory():
            encoded = source.read(file.name)
            rgb = decode_photo(encoded, max_pixels)
            _refuse_mask(rgb)
            # An RGB JPEG stays as it is, so that no tile loses quality twice.
            jpeg = encoded if is_plain_jpeg(encoded) else encode_jpeg(rgb)
    except PhotoError as error:
        return SetAside(file.source, file.name, str(error))
    return jpeg, rgb.shape[:2]


def _refuse_nothing(num_taken: int, set_aside: Sequence[SetAside], num_ignored: int) -> None:
    if num_taken:
        return
    shown = "".join(f"\n  {file.source}/{file.name}: {file.reason}" for file in set_aside[:5])
    raise InputError(
        f"no usable photo: {len(set_aside)} images set aside, {num_ignored} other files; "
        f"expected photos or Positive/ and Negative/ tiles in JPEG, PNG or TIFF{shown}"
    )
