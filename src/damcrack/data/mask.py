"""Crack masks as this project stores them: one-bit grey PNGs, which any viewer opens.

Tiling reads one mask per photo. Of 12 megapixels Pillow takes 8 ms for that, OpenCV 10 ms, unpacking the bits
here 3 ms; a photo's decoding takes 35 ms.
"""

import struct
import zlib

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_DATA_START, _DATA_END = 41, -16  # where the compressed bits lie in a file that `_png` made


def encode_mask(mask: Pixels) -> bytes:
    """Encode a mask of shape (height, width), non-zero = crack, as a one-bit grey PNG, white = crack."""
    height, width = mask.shape
    # Each row begins with the number of its filter; 0 is none.
    rows = np.pad(np.packbits(mask != 0, axis=1), ((0, 0), (1, 0)))
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    return _png((height, width), deflate.compress(rows.tobytes()) + deflate.flush())


def decode_stored_mask(encoded: bytes, max_pixels: int) -> Pixels | None:
    """Decode what `encode_mask` wrote to uint8 of shape (height, width), 255 = crack, 0 = none.

    None for every other file, also a damaged one: those need a reader of all kinds of images.
    """
    if len(encoded) < _DATA_START - _DATA_END:
        return None
    width, height = struct.unpack_from(">II", encoded, 16)
    data = encoded[_DATA_START:_DATA_END]
    # Whatever is not compressed bits follows from the size, checksums included.
    if not 0 < width * height <= max_pixels or encoded != _png((height, width), data):
        return None
    rows = _inflated(data, (height, 1 + -(-width // 8)))
    if rows is None or rows[:, 0].any():
        return None
    bits = np.unpackbits(rows[:, 1:], axis=1, count=width)
    return np.negative(bits, out=bits)  # modulo 256: 1 becomes 255


def _inflated(data: bytes, shape: tuple[int, int]) -> Pixels | None:
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(data, shape[0] * shape[1] + 1)
    except zlib.error:
        return None
    whole = inflate.eof and not inflate.unused_data and len(content) == shape[0] * shape[1]
    return np.frombuffer(content, np.uint8).reshape(shape) if whole else None


def _png(size_hw: tuple[int, int], data: bytes) -> bytes:
    header = _HEADER.pack(size_hw[1], size_hw[0], 1, 0, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
