from dataclasses import fields, replace

import pytest

from damcrack.data.config import MiniimagenetConfig, PhotosConfig, TileConfig

CONFIGS = (
    PhotosConfig(sources={"a": "sample"}),
    MiniimagenetConfig(source="sample", image_px=32),
    TileConfig(),
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sources", {}),
        ("sources", {"../up": "sample"}),
        ("sources", {"a": "sample", "b": "sample"}),
        ("sample_photos", 0),
        ("sample_size_hw", (16, 320)),
        ("max_megapixels", 0),
        ("ready_tile_block", 0),
        ("sample_classes", 1),
        ("image_px", 0),
        ("max_classes", 1),
        ("max_per_class", 0),
        ("val_fraction", 1.0),
        ("crack_fraction", 0.0),
        ("tiles_per_class", -1),
        ("split", "scene"),
        ("test_fraction", -0.1),
        ("duplicate_bits", 65),
        ("jpeg_quality", 0),
        ("seed", -1),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(field: str, value: object) -> None:
    """The message has the field's name, as params.yaml spells it."""
    for config in (config for config in CONFIGS if field in {known.name for known in fields(config)}):
        with pytest.raises(ValueError, match=field):
            replace(config, **{field: value})
