"""The mean of trained detectors as a model folder: python -m experiments.detector.mean --models A B --tiles T --out M.

Networks that began with the same weights have a mean that is a network too, often better than each (Wortsman et al.
2022). Two things no longer fit it and are measured again: the statistics of its batch norms, on views of training
tiles, and where a pixel is called crack, on validation tiles. The views are those of `detector` in params.yaml.
"""

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from damcrack.data.targets import CLEAN, CRACK
from damcrack.files import InputError, new_directory
from damcrack.params import read_params, stage_config
from damcrack.run import Run
from damcrack.train.batches import DeviceImages
from damcrack.train.fitting import PIXEL_STATISTICS, open_images
from damcrack.train.pixels import PixelNetwork
from damcrack.train.weights import load_model, save_model, snapshot_of

NUM_BATCHES, BATCH_SIZE = 60, 16
STEPS = torch.linspace(-5, 5, 1001)  # logits at which a pixel may be called crack


def mean_of(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the states of one network; counters are those of the first.

    Raises:
        InputError: their tensors have other names or shapes.
    """
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(one != shapes[0] for one in shapes):
        raise InputError(
            "the models are different networks, so they have no mean; give models of one network"
        )
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


def best_cut(network: PixelNetwork, images: DeviceImages) -> float:
    """The logit from which on pixels of the validation tiles have to be called crack for the highest F1."""
    crack, found = torch.zeros(2, len(STEPS) + 1, dtype=torch.int64)
    with torch.no_grad():
        for batch in images.in_order("val", BATCH_SIZE):
            assert batch.targets_BHW is not None
            places_BHW = torch.bucketize(network.both(batch.inputs)[1], STEPS)
            for counts, known in ((crack, [CRACK]), (found, [CRACK, CLEAN])):
                which_BHW = torch.isin(batch.targets_BHW, torch.tensor(known))
                counts += torch.bincount(places_BHW[which_BHW], minlength=len(counts))
    right, called = (counts.flip(0).cumsum(0).flip(0)[1:] for counts in (crack, found))
    return float(STEPS[(2 * right / (called + crack.sum())).argmax()])


def main() -> None:
    """Take the mean, measure again what no longer fits it, write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    loaded = [load_model(folder) for folder in args.models]
    network, info = loaded[0]
    assert isinstance(network, PixelNetwork)
    network.load_state_dict(mean_of([snapshot_of(one) for one, _ in loaded]))

    config = stage_config(read_params(Path("params.yaml")), "finetune", "detector")
    images = open_images(args.tiles, config.image_px, "tiles", Run(), with_targets=True)
    views = DeviceImages(images, PIXEL_STATISTICS, config.augmentation, torch.device("cpu"))
    network.forward = network.both  # type: ignore[assignment]
    update_bn(islice(views.shuffled(BATCH_SIZE, config.seed, epoch=1), NUM_BATCHES), network.train())
    network.eval()
    cut, bias = best_cut(network, views), network.pixel_head.bias
    assert bias is not None
    with torch.no_grad():
        bias -= cut
    state = snapshot_of(network)
    with new_directory(args.out, "model") as folder:
        save_model(folder, replace(info, name="detector", best_epoch=0), state, state)
    print(f"{args.out}: the mean of {len(loaded)} models; crack from a logit of {cut:.2f} on, which is 0 now")


if __name__ == "__main__":
    main()
