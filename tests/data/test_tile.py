from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from damcrack import files as parallel
from damcrack.data.imageset import ImageSet, ImageSetWriter, decode_image, tiles_to_folders
from damcrack.data.photos import COLUMNS
from damcrack.data.pool import Photos, Pool, choose_training
from damcrack.data.tile import tile
from damcrack.files import OUTPUT_MARKER, InputError, read_csv, sha256_file, write_csv
from damcrack.run import Run
from photo_folders import CONFIG, PhotosDirectory, concrete, half_cracked, run_tile


@pytest.fixture
def photos(tmp_path: Path) -> PhotosDirectory:
    """Ten labelled photos of 3 x 4 tiles, half of them cracked: 60 tiles of each class."""
    directory = PhotosDirectory(tmp_path / "photos")
    rng = np.random.default_rng(0)
    for number in range(10):
        directory.add(f"{number:02d}", concrete(rng), half_cracked())
    return directory


def counts(images: ImageSet) -> Counter[tuple[str, int]]:
    """Tiles by split and label."""
    return Counter((row["split"], label) for row, label in zip(images.rows, images.labels, strict=True))


def decoded(images: ImageSet) -> dict[str, np.ndarray]:
    """RGB pixels of each image by key."""
    return {images.rows[number]["key"]: decode_image(number, encoded) for number, encoded in images.encoded()}


def test_labels_follow_the_crack_fraction(tmp_path: Path) -> None:
    """At a threshold of 11 pixels of a tile: 11 make a crack, 10 are left out, none is no crack."""
    directory = PhotosDirectory(tmp_path / "photos")
    mask = np.zeros((32, 32 * 6), np.uint8)
    mask[0, :11] = mask[5, 32:42] = mask[9, 96:107] = 255
    for name in "ab":
        directory.add(name, concrete(np.random.default_rng(ord(name)), 32, 192), mask)
    config = replace(CONFIG, crack_fraction=11 / 1024)
    summary = tile(directory.root, tmp_path / "tiles", config, Run())
    images = ImageSet.open(tmp_path / "tiles")
    cracks = {
        (row["photo"], row["column"], row["crack_fraction"]) for row in images.rows if row["label"] == "1"
    }
    fraction = repr(11 / 1024)
    assert cracks == {(f"wall/{name}.png", column, fraction) for name in "ab" for column in "03"}
    assert {row["column"] for row in images.rows if row["label"] == "0"} <= {"2", "4", "5"}
    assert summary["left out, hardly any crack in them"] == 2


def test_a_random_split_has_the_exact_counts(photos: PhotosDirectory, tmp_path: Path) -> None:
    """40 of each class become 32 + 8, as in the paper's 8:2."""
    images = run_tile(photos, tmp_path / "tiles", split="random", tiles_per_class=40)
    assert counts(images) == {("train", 0): 32, ("train", 1): 32, ("val", 0): 8, ("val", 1): 8}


def test_a_split_by_photo_has_no_photo_on_two_sides(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Train, validation and test photos differ, and the shares are those asked."""
    images = run_tile(photos, tmp_path / "tiles", test_fraction=0.2)
    photos_of = {
        name: {images.rows[n]["photo"] for n in images.where(name)} for name in ("train", "val", "test")
    }
    assert [len(photos_of[name]) for name in ("train", "val", "test")] == [6, 2, 2]
    assert sum(len(each) for each in photos_of.values()) == len(set().union(*photos_of.values()))
    assert counts(images)["test", 1] == counts(images)["test", 0] == 12


def test_photos_of_one_group_stay_together(tmp_path: Path) -> None:
    """Ten photos in five scenes: no scene is in two splits."""
    directory = PhotosDirectory(tmp_path / "photos")
    rng = np.random.default_rng(1)
    for number in range(10):
        directory.add(f"{number}", concrete(rng), half_cracked(), group=f"scene{number // 2}")
    images = run_tile(directory, tmp_path / "tiles", test_fraction=0.2)
    sides = {(row["group"], row["split"]) for row in images.rows}
    assert len(sides) == len({group for group, _ in sides}) == 5


def with_copies(directory: PhotosDirectory) -> None:
    """Add brighter copies of the first five photos, as photos of their own."""
    for row in list(directory.rows)[:5]:
        rgb = cv2.imread(str(directory.root / str(row["file"])))[..., ::-1]
        name = str(row["photo"]).removeprefix("wall/").removesuffix(".png")
        directory.add(f"copy-{name}", cv2.add(rgb, (5, 5, 5, 0)), half_cracked())


@pytest.mark.parametrize("split", ["random", "photo"])
def test_near_duplicates_stay_on_one_side(photos: PhotosDirectory, tmp_path: Path, split: str) -> None:
    """Every tile of a copied photo is in the split of its original, and in its duplicate group."""
    with_copies(photos)
    images = run_tile(photos, tmp_path / "tiles", split=split)
    place = {(row["photo"], row["row"], row["column"]): row for row in images.rows}
    pairs = [
        (place[photo.replace("copy-", ""), line, column], row)
        for (photo, line, column), row in place.items()
        if "copy-" in photo
    ]
    assert len(pairs) == 60
    assert sum(one["duplicate_group"] == other["duplicate_group"] for one, other in pairs) >= 57
    assert all(
        one["split"] == other["split"]
        for one, other in pairs
        if split == "photo" or one["duplicate_group"] == other["duplicate_group"]
    )
    assert {row["split"] for row in images.rows} == {"train", "val"}


def test_duplicates_may_be_left_to_chance(photos: PhotosDirectory, tmp_path: Path) -> None:
    """With keep_duplicates_together off a random split parts some copies from their originals."""
    with_copies(photos)
    images = run_tile(photos, tmp_path / "tiles", split="random", keep_duplicates_together=False)
    sides = {(row["duplicate_group"], row["split"]) for row in images.rows}
    assert len(sides) > len({group for group, _ in sides})


def test_test_tiles_that_repeat_a_training_tile_are_dropped(photos: PhotosDirectory, tmp_path: Path) -> None:
    """A test source that is a copy of training photos keeps only tiles of its own, with their masks."""
    first = cv2.imread(str(photos.root / "photos/wall/00.png"))[..., ::-1]
    photos.add("copied", first, half_cracked(), source="field")
    photos.add("own", concrete(np.random.default_rng(9)), half_cracked(), source="field")
    images = run_tile(photos, tmp_path / "tiles", test_sources=("field",))
    assert {images.rows[number]["photo"] for number in images.where("test")} == {"field/own.png"}
    assert counts(images)["train", 0] + counts(images)["val", 0] == 60
    assert len(decoded(images)) == len(images) < 60 + 60 + 12 + 12
    masked = [number for number, _ in images.masks()]
    assert masked == [number for number, label in enumerate(images.labels) if label == 1]


def test_test_sources_are_for_testing_only(photos: PhotosDirectory, tmp_path: Path) -> None:
    """A test source gives no training tile; each source's test tiles are capped and balanced."""
    for number in range(3):
        photos.add(f"{number}", concrete(np.random.default_rng(50 + number)), half_cracked(), source="field")
    images = run_tile(
        photos, tmp_path / "tiles", test_sources=("field",), test_fraction=0.2, test_tiles_per_class=4
    )
    tested = [(images.rows[n]["source"], images.labels[n]) for n in images.where("test")]
    assert {pair: tested.count(pair) for pair in tested} == dict.fromkeys(
        [("field", 0), ("field", 1), ("wall", 0), ("wall", 1)], 4
    )
    assert {row["source"] for row in images.rows if row["split"] != "test"} == {"wall"}


def test_tiles_show_the_pixels_of_their_boxes_in_true_colours(
    photos: PhotosDirectory, tmp_path: Path
) -> None:
    """A decoded tile differs from the photo inside its box by JPEG's rounding only, channel by channel."""
    images = run_tile(photos, tmp_path / "tiles")
    tiles = decoded(images)
    for row in images.rows[::7]:
        photo = cv2.imread(str(photos.root / "photos" / row["photo"]))[..., ::-1]
        x0, y0, x1, y1 = (int(row[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px"))
        assert (x0, y0) == (int(row["column"]) * 32, int(row["row"]) * 32)
        differences = np.abs(photo[y0:y1, x0:x1].astype(int) - tiles[row["key"]])
        assert differences.mean(axis=(0, 1)).max() < 3


def test_the_number_of_workers_changes_no_byte(
    photos: PhotosDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index, settings and shards are identical whatever order the threads finish in."""
    written = []
    for name, workers in (("one", 1), ("two", 5)):
        monkeypatch.setattr(parallel, "num_workers", lambda workers=workers: workers)
        run_tile(photos, tmp_path / name, test_fraction=0.2)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert written[0] == written[1]
    names = {OUTPUT_MARKER, "masks/00000.tar", "set.json", "shards/00000.tar", "tiles.csv"}
    assert written[0].keys() == names


def test_another_seed_chooses_other_tiles(photos: PhotosDirectory, tmp_path: Path) -> None:
    """The seed decides the choice."""
    chosen = [
        {row["key"] for row in run_tile(photos, tmp_path / str(seed), tiles_per_class=20, seed=seed).rows}
        for seed in (0, 1)
    ]
    assert chosen[0] != chosen[1]


def test_more_tiles_than_there_are_is_refused_with_the_counts(
    photos: PhotosDirectory, tmp_path: Path
) -> None:
    """Asking 61 of 60 says how many there are, and writes nothing."""
    with pytest.raises(
        InputError, match=r"60 crack and 60 no-crack tiles can be used for training .* 61 of each"
    ):
        run_tile(photos, tmp_path / "tiles", tiles_per_class=61)
    assert not (tmp_path / "tiles").exists()


def test_photos_without_a_mask_are_skipped_and_counted(photos: PhotosDirectory, tmp_path: Path) -> None:
    """An unlabelled photo gives no tile and shows in the summary."""
    photos.add("unlabelled", concrete(np.random.default_rng(8)), None)
    summary = tile(photos.root, tmp_path / "tiles", CONFIG, Run())
    assert summary["photos used"] == "10 of 11 (1 without a mask)"
    assert "wall/unlabelled.png" not in {row["photo"] for row in ImageSet.open(tmp_path / "tiles").rows}


def _shrink_a_photo(directory: PhotosDirectory) -> None:
    directory.add("tiny", np.zeros((20, 90, 3), np.uint8), np.zeros((20, 90), np.uint8))


def _damage_a_photo(directory: PhotosDirectory) -> None:
    path = directory.root / "photos/wall/07.png"
    path.write_bytes(path.read_bytes()[:2000])


def _lose_a_mask(directory: PhotosDirectory) -> None:
    (directory.root / "masks/wall/07.png").unlink()


def _remove_the_list(directory: PhotosDirectory) -> None:
    (directory.root / "photos.csv").unlink()


def _remove_all_masks(directory: PhotosDirectory) -> None:
    for row in directory.rows:
        row["mask"] = ""
    write_csv(directory.root / "photos.csv", COLUMNS, directory.rows)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_shrink_a_photo, "wall/tiny.png: 90x20 px is smaller than one tile of 32 px"),
        (_damage_a_photo, "07.png: .*run the photos stage again"),
        (_lose_a_mask, "07.png: .*run the photos stage again"),
        (_remove_the_list, "holds no photos.csv"),
        (_remove_all_masks, "0 crack and 0 no-crack tiles"),
    ],
)
def test_a_failure_leaves_nothing_new(
    photos: PhotosDirectory, tmp_path: Path, spoil: Callable[[PhotosDirectory], None], message: str
) -> None:
    """Whatever is wrong with the photos is an InputError; the earlier output stays, nothing is added."""
    run_tile(photos, tmp_path / "tiles")
    before = ImageSet.open(tmp_path / "tiles").digest
    spoil(photos)
    with pytest.raises(InputError, match=message):
        run_tile(photos, tmp_path / "tiles")
    assert ImageSet.open(tmp_path / "tiles").digest == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "tiles"]


def add_ready_tiles(root: Path, size_px: int, num: int = 80) -> None:
    """Ready tiles, half of them of cracks, in groups of ten, as the photos stage writes them."""
    rng = np.random.default_rng(4)
    writer = ImageSetWriter(root / "ready")
    for number in range(num):
        label, name = number % 2, f"{number:05d}.jpg"
        encoded = cv2.imencode(".jpg", concrete(rng, size_px, size_px))[1].tobytes()
        group = f"metu/{number // 10}"
        columns = {"photo": f"metu/{name}", "source": "metu", "group": group}
        columns |= {"height_px": size_px, "width_px": size_px}
        writer.add(name, encoded, label=label, split="", **columns)
    writer.finish("tiles.csv", ("no crack", "crack"), (size_px, size_px))


def test_ready_tiles_are_resized_and_split_by_their_groups(tmp_path: Path) -> None:
    """Tiles of 40 px become 32 px tiles with their label and group, no box, and no group on two sides."""
    directory = PhotosDirectory(tmp_path / "photos")
    write_csv(directory.root / "photos.csv", COLUMNS, [])
    add_ready_tiles(directory.root, 40)
    images = run_tile(directory, tmp_path / "tiles")
    ready = ImageSet.open(directory.root / "ready")
    labels = {row["photo"]: row["label"] for row in ready.rows}
    assert len(images) == 80
    assert {tile.shape for tile in decoded(images).values()} == {(32, 32, 3)}
    assert all(row["label"] == labels[row["photo"]] for row in images.rows)
    assert {row["x0_px"] + row["crack_fraction"] + row["row"] + row["column"] for row in images.rows} == {
        "00"
    }
    groups = [{images.rows[number]["group"] for number in images.where(name)} for name in ("train", "val")]
    assert groups[0].isdisjoint(groups[1])
    assert sum(map(len, groups)) == 8


def test_ready_tiles_of_the_right_size_keep_their_bytes(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Beside photos, ready tiles of tile_px are copied, not encoded a second time."""
    add_ready_tiles(photos.root, 32)
    ready = ImageSet.open(photos.root / "ready")
    originals = {ready.rows[number]["photo"]: encoded for number, encoded in ready.encoded()}
    images = run_tile(photos, tmp_path / "tiles", split="random")
    kept = {images.rows[number]["photo"]: encoded for number, encoded in images.encoded()}
    assert len(images) == 200
    assert all(kept[photo] == encoded for photo, encoded in originals.items())


def test_whole_photos_among_the_ready_tiles_are_left_out(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Nine times as large as a tile: their cracks would vanish."""
    add_ready_tiles(photos.root, 9 * 32, num=4)
    images = run_tile(photos, tmp_path / "tiles")
    assert {row["source"] for row in images.rows} == {"wall"}


@pytest.mark.parametrize("num_crack", [1, 2, 3])
def test_training_and_validation_have_both_classes_or_there_are_no_tiles(
    tmp_path: Path, num_crack: int
) -> None:
    """Photos that are all clean or all cracked: one of each on either side, or a refusal."""
    directory = PhotosDirectory(tmp_path / "photos")
    rng, white = np.random.default_rng(0), np.full((96, 128), 255, np.uint8)
    for number in range(8):
        directory.add(f"{number}", concrete(rng), white if number < num_crack else np.zeros_like(white))
    if num_crack == 1:
        with pytest.raises(InputError, match="both classes"):
            run_tile(directory, tmp_path / "tiles")
        assert not (tmp_path / "tiles").exists()
    else:
        images = run_tile(directory, tmp_path / "tiles")
        assert set(counts(images)) == {(split, label) for split in ("train", "val") for label in (0, 1)}


def test_a_random_split_without_validation_tiles_is_refused(photos: PhotosDirectory, tmp_path: Path) -> None:
    """A share that rounds to no tile."""
    with pytest.raises(InputError, match="val_fraction"):
        run_tile(photos, tmp_path / "tiles", split="random", val_fraction=0.001)


def test_unlabelled_copies_of_test_photos_are_not_taught(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Re-encoded under another name, in no group of theirs; other photos are."""
    for row in list(photos.rows):
        rgb = cv2.imread(str(photos.root / row["file"]))[..., ::-1]
        again = cv2.imdecode(cv2.imencode(".jpg", rgb[..., ::-1])[1], cv2.IMREAD_COLOR)[..., ::-1]
        photos.add(f"copy-{Path(row['file']).stem}", again, None)
    images = run_tile(photos, tmp_path / "tiles", test_fraction=0.3, unlabelled_tiles=1000)
    stems: dict[str, set[str]] = {"test": set(), "unlabelled": set()}
    for row in images.rows:
        stems.setdefault(row["split"], set()).add(Path(row["photo"]).stem.removeprefix("copy-"))
    assert len(stems["test"]) == 3
    assert len(stems["unlabelled"]) == 7
    assert stems["test"].isdisjoint(stems["unlabelled"])


def test_a_damaged_label_of_a_ready_tile_is_named(photos: PhotosDirectory, tmp_path: Path) -> None:
    """It is the index of a class."""
    add_ready_tiles(photos.root, 32)
    path = photos.root / "ready/tiles.csv"
    rows = read_csv(path)
    rows[3]["label"] = "yes"
    write_csv(path, tuple(rows[0]), rows)
    with pytest.raises(InputError, match=r"tiles\.csv: label 'yes'"):
        run_tile(photos, tmp_path / "tiles")


@pytest.mark.parametrize(("old", "new"), [("height_px", "height"), (",96,", ",x,"), (",96,128,", "\n")])
def test_a_damaged_photos_csv_is_named(photos: PhotosDirectory, tmp_path: Path, old: str, new: str) -> None:
    """A column, a number or the end of a row is missing."""
    path = photos.root / "photos.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"photos\.csv is damaged"):
        run_tile(photos, tmp_path / "tiles")


def test_tiles_to_folders_writes_the_papers_layout(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Each JPEG lies in its split's folder of its class, bytes unchanged; without a label, in one folder."""
    photos.add("free", concrete(np.random.default_rng(8)), None)
    images = run_tile(photos, tmp_path / "tiles", split="random", unlabelled_tiles=4)
    root = tmp_path / "folders"
    tiles_to_folders(tmp_path / "tiles", root, Run())
    found = {path.relative_to(root).as_posix(): sha256_file(path) for path in root.rglob("*.jpg")}
    folder = {"0": "/no-crack", "1": "/crack", "-1": ""}
    assert found == {
        f"{row['split']}{folder[row['label']]}/{row['key']}": row["sha256"] for row in images.rows
    }
    assert sorted(path.name for path in root.iterdir()) == [OUTPUT_MARKER, "train", "unlabelled", "val"]
    assert len(list((root / "unlabelled").iterdir())) == 4


def test_each_source_is_balanced_by_itself() -> None:
    """A source with mostly cracks and one with hardly any: equally many of both classes from each."""
    label = np.array([1] * 30 + [0] * 10 + [1] * 5 + [0] * 40)
    origins = [{"source": "metu"}, {"source": "hires"}]
    origin = np.repeat([0, 1], [40, 45])
    boxes, nothing = np.zeros((len(label), 4), int), np.zeros(len(label))
    pool = Pool(Photos(Path(), [], None), origins, 0, origin, boxes, nothing, label)
    chosen = choose_training(pool, np.arange(len(label)), CONFIG)
    counts = np.bincount(origin[chosen] * 2 + label[chosen]).tolist()
    assert counts == [10, 10, 5, 5]
