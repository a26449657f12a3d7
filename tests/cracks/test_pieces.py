import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from damcrack.cracks.segment import pieces

MASKS = arrays(np.uint8, (24, 30), elements=st.integers(0, 1))


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_sizes_and_boxes_agree_with_opencv(mask):
    """Of every connected piece; the background is none."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    area_px, boxes_xyxy = pieces(labels, mask)
    np.testing.assert_array_equal(area_px[1:], stats[1:, cv2.CC_STAT_AREA])
    np.testing.assert_array_equal(boxes_xyxy[1:, :2], stats[1:, :2])
    np.testing.assert_array_equal((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])[1:], stats[1:, 2:4])
    assert area_px[0] == 0
