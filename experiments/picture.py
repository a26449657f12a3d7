"""Draw docs/images/sample.jpg: photographs of the built-in sample, their crack masks in red below.

python -m experiments.picture
"""

from pathlib import Path

import cv2
import numpy as np

from damcrack.sample.concrete import render_photo

PHOTOS, SIZE_HW, SHOWN_HW = (0, 2, 3, 5), (896, 1120), (320, 400)


def main() -> None:
    """Render, overlay, write."""
    columns = []
    for index in PHOTOS:
        photo = render_photo(seed=7, index=index, size_hw=SIZE_HW)
        marked = photo.rgb.copy()
        marked[cv2.dilate(photo.mask, np.ones((3, 3), np.uint8)) > 0] = (230, 30, 30)
        columns.append(
            np.vstack([cv2.resize(view, SHOWN_HW[::-1], interpolation=3) for view in (photo.rgb, marked)])
        )
    picture = np.hstack(columns)
    path = Path("docs/images/sample.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    print(f"written: {path}")


if __name__ == "__main__":
    main()
