"""Colours as a viewer shows them: those of sRGB, by the ICC profile of the file."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

STRIP_ROWS = 512

Pixels = npt.NDArray[np.uint8]


def in_srgb(rgb: Pixels, image: Image.Image) -> Pixels:
    """RGB as a viewer shows it, by the profile of the image that it was read from."""
    mode = "L" if Image.getmodebase(image.mode) == "L" else "RGB"
    transform = to_srgb(image, mode)
    if transform is None:
        return rgb
    shown = np.empty_like(rgb)
    for top in range(0, len(rgb), STRIP_ROWS):  # by parts, because Pillow's pixels take 4 bytes
        strip = Image.fromarray(rgb[top : top + STRIP_ROWS]).convert(mode)
        shown[top : top + STRIP_ROWS] = np.asarray(transform.apply(strip))
    return shown


def to_srgb(image: Image.Image, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From pixels of this mode to sRGB; None if they are, or the profile is damaged or of other colours."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return None
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (KeyError, TypeError, OSError, ImageCms.PyCMSError):
        return None
