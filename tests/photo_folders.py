"""Small photos as files, and a folder as the photos stage writes it with the values to tile it with."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from damcrack.data.config import TileConfig
from damcrack.data.imageset import ImageSet
from damcrack.data.photos import COLUMNS
from damcrack.data.tile import tile
from damcrack.files import read_csv, sha256_bytes, write_csv
from damcrack.run import Run

CONFIG = TileConfig(tile_px=32, crack_fraction=0.01, test_fraction=0.0)


def encoded(
    seed: int = 0,
    size_hw: tuple[int, int] = (40, 60),
    kind: str = "JPEG",
    mode: str = "RGB",
    **options: object,
) -> bytes:
    """A photo of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def fill(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write the files; return the folder as a source."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def reasons(out: Path) -> dict[str, str]:
    """File name -> why it was set aside."""
    return {row["name"]: row["reason"] for row in read_csv(out / "quarantine.csv")}


class PhotosDirectory:
    """Builds what the photos stage would have written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[dict[str, object]] = []
        root.mkdir()

    def add(
        self,
        name: str,
        rgb: np.ndarray,
        mask: np.ndarray | None,
        source: str = "wall",
        group: str | None = None,
    ) -> None:
        """Store a photo losslessly, with its mask if it has one."""
        mask_path = "" if mask is None else f"masks/{source}/{name}.png"
        if mask is not None:
            self._write(mask_path, mask)
        path = f"photos/{source}/{name}.png"
        self._write(path, rgb[..., ::-1])
        self.rows.append(
            {
                "photo": f"{source}/{name}.png",
                "source": source,
                "group": f"{source}/{group or name}",
                "file": path,
                "mask": mask_path,
                "height_px": rgb.shape[0],
                "width_px": rgb.shape[1],
                "sha256": sha256_bytes((self.root / path).read_bytes()),
            }
        )
        write_csv(self.root / "photos.csv", COLUMNS, self.rows)

    def _write(self, path: str, image: np.ndarray) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(self.root / path), np.ascontiguousarray(image))


def run_tile(photos: PhotosDirectory, out: Path, **changes: object) -> ImageSet:
    """Run the stage and open what it wrote."""
    tile(photos.root, out, replace(CONFIG, **changes), Run())  # type: ignore[arg-type]
    return ImageSet.open(out)


def concrete(rng: np.random.Generator, height: int = 96, width: int = 128) -> np.ndarray:
    """Random coloured stains, nowhere alike."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), 3)
    return np.clip(130 + noise * 300, 0, 255).astype(np.uint8)


def half_cracked(height: int = 96, width: int = 128) -> np.ndarray:
    """A mask with a vertical crack in every second column of 32 px tiles."""
    mask = np.zeros((height, width), np.uint8)
    for left in range(0, width, 64):
        mask[:, left + 10 : left + 13] = 255
    return mask
