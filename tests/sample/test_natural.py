"""The pretraining classes: determinism, distinct names, distinct but not trivially so."""

import cv2
import numpy as np
import pytest

from damcrack.files import InputError
from damcrack.sample.natural import class_names, render_natural

NUM_CLASSES = 16


def thumbnails(first: int, last: int) -> np.ndarray:
    """Flattened 12 px versions of images [first, last) of each class: (class, image, feature)."""
    rendered = [[render_natural(11, c, i, 48) for i in range(first, last)] for c in range(NUM_CLASSES)]
    small = [[cv2.resize(image, (12, 12), interpolation=cv2.INTER_AREA) for image in row] for row in rendered]
    return np.array(small, np.float32).reshape(NUM_CLASSES, last - first, -1)


def test_image_is_a_function_of_its_arguments() -> None:
    """The same arguments give the same bytes; another image of the class differs."""
    image = render_natural(11, 3, 8, 56)
    assert image.shape == (56, 56, 3)
    assert image.dtype == np.uint8
    assert np.array_equal(image, render_natural(11, 3, 8, 56))
    assert not np.array_equal(image, render_natural(11, 3, 9, 56))


def test_hundred_classes_have_their_own_names() -> None:
    """A smaller set begins a larger one; each coat and outline occurs ten times: neither alone names a class."""
    names = class_names(100)
    assert len(set(names)) == 100
    assert class_names(16) == names[:16]
    coats, outlines = zip(*(name.split("_") for name in names), strict=True)
    assert {coats.count(coat) for coat in coats} == {10}
    assert {outlines.count(outline) for outline in outlines} == {10}


@pytest.mark.parametrize("num_classes", [0, 101])
def test_more_classes_than_there_are_is_refused(num_classes: int) -> None:
    """The number of classes is the user's fault."""
    with pytest.raises(InputError, match="100"):
        class_names(num_classes)


@pytest.mark.parametrize("class_index", range(100))
def test_every_class_is_drawn(class_index: int) -> None:
    """Every class gives an image with some contrast."""
    assert render_natural(0, class_index, 0, 32).std() > 5


def test_classes_are_distinct_but_not_linearly_trivial() -> None:
    """The nearest class mean of thumbnails is right more often than by chance (1 in 16) and far from always."""
    means = thumbnails(0, 32).mean(axis=1)
    held_out = thumbnails(32, 44)
    distances = ((held_out[:, :, None] - means) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=-1) == np.arange(NUM_CLASSES)[:, None]).mean()
    assert 1.5 / NUM_CLASSES < accuracy < 0.9
