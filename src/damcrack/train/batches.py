"""Batches of a decoded set on the training device: gathered, augmented and normalised there.

Shape suffixes: N training images, B images of a batch, V views, C channels or classes, H rows, W columns,
F features.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from damcrack.data.imageset import UNLABELLED
from damcrack.data.targets import CRACK, SOMEWHERE, UNKNOWN
from damcrack.files import in_order
from damcrack.train.augment import Draws, augment, augment_both, draw, normalise
from damcrack.train.config import Augmentation
from damcrack.train.decoded import DecodedSet
from damcrack.train.hardware import compiled

VIEW_SEED = 1_000_003  # of fixed views: the same for every student, so that stored answers serve them all


class Batch(NamedTuple):
    """What a step works on: images (B, C, H, W) or features (B, F), and the teacher's answer if it is stored.

    `labels_B` is -1 where no label is known. `targets_BHW` are the codes of the pixels, for networks with a pixel head.
    """

    inputs: Tensor
    labels_B: Tensor
    teacher_logits_BC: Tensor | None = None
    targets_BHW: Tensor | None = None


class Batches(Protocol):
    """Where the training loop gets its batches; the order of an epoch depends on seed and epoch alone."""

    def num_batches(self, split: str, batch_size: int) -> int:
        """How many batches a pass over the split takes."""

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One training epoch, every image once."""

    def in_order(self, split: str, batch_size: int) -> Iterator[Batch]:
        """The images of a split as they are."""


class DeviceImages:
    """A decoded set as seen from a device, with its channel statistics (mean, deviation) and augmentation.

    `views` None draws again in every epoch; a number gives each image that many fixed draws, used in turn.
    `resident` keeps all pixels on the device; otherwise batches are gathered ahead into pinned memory.
    `compile_views` fuses what makes a view of an image into few kernels. If the set has codes of pixels, batches bring
    them, and labels say whether a view shows known crack pixels. Of each batch `num_unlabelled` images are drawn from
    those without a label.
    """

    def __init__(
        self,
        images: DecodedSet,
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
        augmentation: Augmentation,
        device: torch.device,
        views: int | None = None,
        resident: bool = True,
        compile_views: bool = False,
        num_unlabelled: int = 0,
    ) -> None:
        self.views = views
        self.device = device
        self._augmentation = augmentation
        self._rows_of = images.rows_of
        self._mean_C, self._std_C = (torch.tensor(values, device=device) for values in statistics)
        self._resident = resident
        self._view = compiled(_view, device, graphs=False) if compile_views else _view
        self._pixels_NHWC = torch.from_numpy(images.images_NHWC)  # on the CPU this maps the file
        self._labels_N = torch.from_numpy(images.labels_N).to(device)
        self._targets_NHW = None if images.targets_NHW is None else torch.from_numpy(images.targets_NHW)
        self._num_unlabelled = num_unlabelled
        if resident:
            self._pixels_NHWC = self._pixels_NHWC.to(device)

    def num_batches(self, split: str, batch_size: int) -> int:
        """How many batches a pass over the split takes."""
        return -(-len(self._rows_of[split]) // batch_size)

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One training epoch in an order and with draws that depend on seed and epoch alone.

        Batches differ by at most one image, so none is left out and none is too small for batch norm.
        """
        order = self.order(batch_size, seed, epoch)
        if self._targets_NHW is not None:
            return self._with_targets(order, _epoch_seed(seed, epoch))
        view = None if self.views is None else (epoch - 1) % self.views
        draws = self._draws(_epoch_seed(seed, epoch) if view is None else VIEW_SEED + view)
        return self._augmented(order, draws)

    def order(self, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
        """Places among the training images, one tensor (B,) on the CPU for each batch of an epoch."""
        generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
        places_N = torch.randperm(len(self._rows_of["train"]), generator=generator)
        return list(torch.tensor_split(places_N, self.num_batches("train", batch_size)))

    def labels(self, split: str) -> Tensor:
        """Class index of each image of a split, on the device."""
        return self._labels_N[torch.from_numpy(self._rows_of[split]).to(self.device)]

    def view(self, number: int, batch_size: int) -> Iterator[Batch]:
        """The training images in order, as fixed view `number` shows them."""
        places_N = torch.arange(len(self._rows_of["train"]))
        return self._augmented(list(torch.split(places_N, batch_size)), self._draws(VIEW_SEED + number))

    def in_order(self, split: str, batch_size: int) -> Iterator[Batch]:
        """The images of a split as they are."""
        batches = list(torch.split(torch.from_numpy(self._rows_of[split]), batch_size))
        for rows_B, images_BCHW in self._gathered(batches):
            inputs = normalise(images_BCHW, self._mean_C, self._std_C)
            yield Batch(inputs, self._labels_N[rows_B], None, self._targets(rows_B))

    def _draws(self, seed: int) -> Draws:
        return draw(len(self._rows_of["train"]), self._augmentation, seed).to(self.device)

    def _augmented(self, order: list[Tensor], draws: Draws) -> Iterator[Batch]:
        rows_N = torch.from_numpy(self._rows_of["train"])
        gathered = self._gathered([rows_N[places_B] for places_B in order])
        for places_B, (rows_B, images_BCHW) in zip(moved(order, self.device), gathered, strict=True):
            views_BCHW = self._view(
                images_BCHW, self._augmentation, draws.of(places_B), self._mean_C, self._std_C
            )
            yield Batch(views_BCHW, self._labels_N[rows_B])

    def _with_targets(self, order: list[Tensor], seed: int) -> Iterator[Batch]:
        """Views of an epoch's batches with the codes of their pixels, unlabelled images among them."""
        rows_N = torch.from_numpy(self._rows_of["train"])
        generator = torch.Generator().manual_seed(seed + 1)
        unlabelled_M = torch.from_numpy(self._rows_of[UNLABELLED])
        batches = []
        for places_B in order:
            drawn = torch.randint(max(1, len(unlabelled_M)), (self._num_unlabelled,), generator=generator)
            batches.append(torch.cat([rows_N[places_B], unlabelled_M[drawn]]))
        draws = draw(sum(map(len, batches)), self._augmentation, seed).to(self.device)
        start = 0
        for rows_B, images_BCHW in self._gathered(batches):
            part = Draws(*(values[start : start + len(rows_B)] for values in draws))
            start += len(rows_B)
            targets_BHW = self._targets(rows_B)
            assert targets_BHW is not None
            views_BCHW, targets_BHW = augment_both(images_BCHW, targets_BHW, self._augmentation, part)
            labels_B = _labels_of_views(self._labels_N[rows_B], targets_BHW)
            yield Batch(normalise(views_BCHW, self._mean_C, self._std_C), labels_B, None, targets_BHW)

    def _targets(self, rows_B: Tensor) -> Tensor | None:
        return None if self._targets_NHW is None else self._targets_NHW[rows_B.cpu()].to(self.device)

    def _gathered(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (B,) and pixels (B, C, H, W) on the device; the strides of NHWC are channels-last without a copy."""
        if self._resident:
            for rows_B in moved(batches, self.device):
                yield rows_B, self._pixels_NHWC.index_select(0, rows_B).permute(0, 3, 1, 2)
        else:
            for rows_B, pixels_BHWC in in_order(self._pinned, batches):
                pixels_BHWC = pixels_BHWC.to(self.device, non_blocking=True)
                yield rows_B.to(self.device, non_blocking=True), pixels_BHWC.permute(0, 3, 1, 2)

    def _pinned(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        pixels_BHWC = self._pixels_NHWC.index_select(0, rows_B)
        return rows_B, pixels_BHWC.pin_memory() if self.device.type == "cuda" else pixels_BHWC


class StoredAnswers:
    """Fixed views of a set, each with what a teacher answered to it: the teacher need not run again."""

    def __init__(self, images: DeviceImages, teacher_logits_VNC: Tensor) -> None:
        assert images.views is not None, "answers can be stored for fixed views only"
        self._images, self._views, self._teacher_logits_VNC = images, images.views, teacher_logits_VNC
        self.num_batches, self.in_order = images.num_batches, images.in_order

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One training epoch in the order that the images alone would have."""
        order = moved(self._images.order(batch_size, seed, epoch), self._images.device)
        logits_NC = self._teacher_logits_VNC[(epoch - 1) % self._views]
        for places_B, batch in zip(order, self._images.shuffled(batch_size, seed, epoch), strict=True):
            yield batch._replace(teacher_logits_BC=logits_NC[places_B])


def _labels_of_views(labels_B: Tensor, targets_BHW: Tensor) -> Tensor:
    """Labels of views: what they show of a crack counts, not what the whole tile held; -1 where that is not known."""
    cracked_B = (targets_BHW == CRACK).flatten(1).any(1)
    unsure_B = ((targets_BHW == UNKNOWN) | (targets_BHW == SOMEWHERE)).flatten(1).any(1)
    seen_B = torch.where(cracked_B, 1, torch.where(unsure_B, labels_B, 0))
    return torch.where(labels_B < 0, labels_B, seen_B)


def _view(images_BCHW: Tensor, how: Augmentation, draws: Draws, mean_C: Tensor, std_C: Tensor) -> Tensor:
    return normalise(augment(images_BCHW, how, draws), mean_C, std_C)


def moved(batches: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """The same batches on a device: copied at once, since the device would be waited for at each copy."""
    return torch.split(torch.cat(list(batches)).to(device), [len(batch) for batch in batches])


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch
