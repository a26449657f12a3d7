"""Batches of a decoded set on the training device: gathered, augmented and normalised there.

Shape suffixes: N training images, B images of a batch, V views, C channels or classes, H rows, W columns.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from damcrack.data.imageset import UNLABELLED
from damcrack.data.targets import CRACK, SOMEWHERE, UNKNOWN
from damcrack.files import in_order
from damcrack.train.augment import Draws, augment, draw, normalise
from damcrack.train.config import Augmentation
from damcrack.train.decoded import DecodedSet
from damcrack.train.hardware import compiled

VIEW_SEED = 1_000_003  # of fixed views: the same for every student, so that stored answers serve them all


class Batch(NamedTuple):
    """What a step works on: images (B, C, H, W), and the teacher's answer if it is stored.

    `labels_B` is -1 where no label is known. `targets_BHW` are the codes of the pixels, for networks with a pixel head.
    """

    inputs: Tensor
    labels_B: Tensor
    teacher_logits_BC: Tensor | None = None
    targets_BHW: Tensor | None = None


class DeviceImages:
    """A decoded set as seen from a device, with its channel statistics (mean, deviation) and augmentation.

    `views` None draws again in every epoch; a number gives each image that many fixed draws, used in turn.
    `resident` keeps all pixels on the device; otherwise batches are gathered ahead into pinned memory.
    `compile_views` fuses what makes a view of an image into few kernels. If the set has codes of pixels, batches bring
    them, and labels say whether a view shows known crack pixels. Of each batch `num_unlabelled` images are drawn from
    those without a label. `teacher_logits_VNC`, set later, are a teacher's answers to the fixed views: it need not run
    again.
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
        compile_views = compile_views and images.targets_NHW is None
        self._view = compiled(_view, device, graphs=False) if compile_views else _view
        self._pixels_NHWC = torch.from_numpy(images.images_NHWC)  # on the CPU this maps the file
        self._labels_N = torch.from_numpy(images.labels_N).to(device)
        self._targets_NHW = None if images.targets_NHW is None else torch.from_numpy(images.targets_NHW)
        self._num_unlabelled = num_unlabelled
        self.teacher_logits_VNC: Tensor | None = None
        if resident:
            self._pixels_NHWC = self._pixels_NHWC.to(device)

    def num_batches(self, split: str, batch_size: int) -> int:
        """How many batches a pass over the split takes; in training none has one image alone, if there are two."""
        num = len(self._rows_of[split])
        batches = -(-num // batch_size)
        return max(1, min(batches, num // 2)) if split == "train" else batches

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One training epoch in an order and with draws that depend on seed and epoch alone.

        Batches differ by at most one image, so none is left out and none is too small for batch norm.
        """
        order, epoch_seed = self.order(batch_size, seed, epoch), _epoch_seed(seed, epoch)
        if self._targets_NHW is not None:
            return self._with_unlabelled(order, epoch_seed)
        if self.views is None:
            return self._augmented(order, epoch_seed)
        view, stored = (epoch - 1) % self.views, self.teacher_logits_VNC
        return self._augmented(order, VIEW_SEED + view, None if stored is None else stored[view])

    def order(self, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
        """Places among the training images, one tensor (B,) on the CPU for each batch of an epoch."""
        generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
        places_N = torch.randperm(len(self._rows_of["train"]), generator=generator)
        return list(torch.tensor_split(places_N, self.num_batches("train", batch_size)))

    def view(self, number: int, batch_size: int) -> Iterator[Batch]:
        """The training images in order, as fixed view `number` shows them."""
        places_N = torch.arange(len(self._rows_of["train"]))
        return self._augmented(list(torch.split(places_N, batch_size)), VIEW_SEED + number)

    def in_order(self, split: str, batch_size: int) -> Iterator[Batch]:
        """The images of a split as they are."""
        batches = list(torch.split(torch.from_numpy(self._rows_of[split]), batch_size))
        for rows_B, images_BCHW in self._gathered(batches):
            inputs = normalise(images_BCHW, self._mean_C, self._std_C)
            yield Batch(inputs, self._labels_N[rows_B], None, self._targets(rows_B))

    def _augmented(self, order: list[Tensor], seed: int, logits_NC: Tensor | None = None) -> Iterator[Batch]:
        """Views of training images; each image has its draws, whatever the order."""
        rows_N = torch.from_numpy(self._rows_of["train"])
        draws = draw(len(rows_N), self._augmentation, seed).to(self.device)
        return self._views([rows_N[places_B] for places_B in order], order, draws, logits_NC)

    def _with_unlabelled(self, order: list[Tensor], seed: int) -> Iterator[Batch]:
        """Views of an epoch's batches, unlabelled images among them; each place in the epoch has its draws."""
        rows_N = torch.from_numpy(self._rows_of["train"])
        generator = torch.Generator().manual_seed(seed + 1)
        unlabelled_M = torch.from_numpy(self._rows_of[UNLABELLED])
        batches = []
        for places_B in order:
            drawn = torch.randint(max(1, len(unlabelled_M)), (self._num_unlabelled,), generator=generator)
            batches.append(torch.cat([rows_N[places_B], unlabelled_M[drawn]]))
        sizes = [len(rows_B) for rows_B in batches]
        draws = draw(sum(sizes), self._augmentation, seed).to(self.device)
        return self._views(batches, torch.split(torch.arange(sum(sizes)), sizes), draws)

    def _views(
        self, rows: list[Tensor], places: Sequence[Tensor], draws: Draws, logits_NC: Tensor | None = None
    ) -> Iterator[Batch]:
        """Batches of the images `rows`, changed by the draws at `places`, with the teacher's logits there."""
        pairs = zip(moved(places, self.device), self._gathered(rows), strict=True)
        for places_B, (rows_B, images_BCHW) in pairs:
            how, targets_BHW = self._augmentation, self._targets(rows_B)
            views_BCHW, targets_BHW = self._view(
                images_BCHW, targets_BHW, how, draws.of(places_B), self._mean_C, self._std_C
            )
            labels_B = self._labels_N[rows_B]
            if targets_BHW is not None:
                labels_B = _labels_of_views(labels_B, targets_BHW)
            taught_BC = None if logits_NC is None else logits_NC[places_B]
            yield Batch(views_BCHW, labels_B, taught_BC, targets_BHW)

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


def _labels_of_views(labels_B: Tensor, targets_BHW: Tensor) -> Tensor:
    """Labels of views: what they show of a crack counts, not what the whole tile held; -1 where that is not known."""
    cracked_B = (targets_BHW == CRACK).flatten(1).any(1)
    unsure_B = ((targets_BHW == UNKNOWN) | (targets_BHW == SOMEWHERE)).flatten(1).any(1)
    seen_B = torch.where(cracked_B, 1, torch.where(unsure_B, labels_B, 0))
    return torch.where(labels_B < 0, labels_B, seen_B)


def _view(
    images_BCHW: Tensor,
    targets_BHW: Tensor | None,
    how: Augmentation,
    draws: Draws,
    mean_C: Tensor,
    std_C: Tensor,
) -> tuple[Tensor, Tensor | None]:
    views_BCHW, targets_BHW = augment(images_BCHW, how, draws, targets_BHW)
    return normalise(views_BCHW, mean_C, std_C), targets_BHW


def moved(batches: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """The same batches on a device: copied at once, since the device would be waited for at each copy."""
    return torch.split(torch.cat(list(batches)).to(device), [len(batch) for batch in batches])


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch
