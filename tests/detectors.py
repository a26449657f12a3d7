"""Photos with lines of known darkness and width, and ONNX detectors that find lines darker than so much."""

import json

import cv2
import numpy as np
import onnx

from damcrack.data.config import TileConfig
from damcrack.data.photo import encode_mask
from damcrack.data.photos import COLUMNS
from damcrack.data.tile import tile
from damcrack.files import sha256_bytes, sha256_file, write_csv, write_json
from damcrack.registry.config import RegisterConfig
from damcrack.run import Run
from walls import contract_of, detector_bytes

TILE_PX = 32
THIN_PX, WIDE_PX = 3, 12
TILING = TileConfig(
    tile_px=TILE_PX,
    crack_fraction=0.01,
    val_fraction=0.3,
    test_fraction=0.6,
    keep_duplicates_together=False,
    duplicate_bits=0,
)
CONFIG = RegisterConfig(
    model_name="crack", min_photos=10, min_accuracy=0.5, max_wide_recall_loss=0.05, max_ece=1.0
)


def draw_photos(root, num=40, seed=0, source="wall"):
    """Write what `photos` would: each photo has a thin and a wide line, each of their tiles its own darkness."""
    rng, rows = np.random.default_rng(seed), []
    for folder in ("photos", "masks"):
        (root / folder / source).mkdir(parents=True, exist_ok=True)
    for number in range(num):
        grey = rng.integers(165, 180, (4 * TILE_PX, 6 * TILE_PX)).astype(np.uint8)
        mask = np.zeros_like(grey)
        for middle, width in ((16, THIN_PX), (80, WIDE_PX)):
            lines = slice(middle - width // 2, middle - width // 2 + width)
            mask[lines] = 255
            grey[lines] = np.repeat(rng.integers(20, 150, 6), TILE_PX).astype(np.uint8)
        names = {"file": f"photos/{source}/{number:03d}.png", "mask": f"masks/{source}/{number:03d}.png"}
        cv2.imwrite(str(root / names["file"]), grey)
        (root / names["mask"]).write_bytes(encode_mask(mask))
        photo = f"{source}/{number:03d}.png"
        size = {"height_px": grey.shape[0], "width_px": grey.shape[1]}
        rows.append(
            {"photo": photo, "source": source, "group": photo, **names, **size}
            | {"sha256": sha256_file(root / names["file"])}
        )
    write_csv(root / "photos.csv", COLUMNS, rows)
    return root


def cut_tiles(photos, out, tiling=TILING):
    """The tile stage on drawn photos."""
    tile(photos, out, tiling, Run())
    return out


def write_export(folder, threshold, name="dynamic", tile_px=TILE_PX, digest="d" * 64, **about):
    """Write what `export` would, of a detector that sees the tiles whose darkest pixel is below `threshold`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = f"weights {name} {threshold}".encode()
    (folder / "weights.safetensors").write_bytes(weights)
    contract = contract_of(name, "resnet18", tile_px) | {
        "data_digest": digest,
        "weights_sha256": sha256_bytes(weights),
        "calibration": {"temperature": 1.0, "num_tiles": 64, "nll_before": 0.3, "nll_after": 0.3},
    }
    encoded = _detector(threshold, contract)
    (folder / "model.onnx").write_bytes(encoded)
    made_from = {"parents": {"init_sha256": None, "teacher_sha256": None}}
    write_json(folder / "model.json", contract | {"onnx_sha256": sha256_bytes(encoded)} | made_from | about)
    return folder


def _detector(threshold, contract):
    nodes = [
        ("Cast", ["tiles"], ["light"], {"to": onnx.TensorProto.FLOAT}),
        ("ReduceMin", ["light", "last"], ["grey"], {"keepdims": 0}),
        ("Neg", ["grey"], ["darkness"], {}),
        ("Unsqueeze", ["darkness", "one"], ["darkness_B1HW"], {}),
        ("MaxPool", ["darkness_B1HW"], ["cells_B1HW"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Squeeze", ["cells_B1HW", "one"], ["cells"], {}),
        ("Add", ["cells", "threshold"], ["above"], {}),
        ("Sigmoid", ["above"], ["crack_map"], {}),
    ]
    constants = {
        "last": np.array([3]),
        "one": np.array([1]),
        "threshold": np.array(threshold, np.float32),
    }
    return detector_bytes(nodes, constants, contract)


def write_evaluation(folder, export):
    """Write a metrics.json that judges an export's weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads((export / "model.json").read_text())
    row = {"accuracy": 0.95, "recall": 0.9, "auroc": None, "weights_sha256": model["weights_sha256"]}
    chosen = {"digest": "e" * 64, "split": "test", "num_tiles": 64}
    write_json(
        folder / "metrics.json",
        {"format": 1, "evaluation_set": chosen, "experiments": {model["name"]: row}},
    )
    return folder
