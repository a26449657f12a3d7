"""Networks with a tile head and a pixel head, and the form in which they travel."""

from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from damcrack.export.deployed import BLOCK_SHARE, Deployed
from damcrack.train.augment import normalise
from damcrack.train.frozen import Frozen
from damcrack.train.networks import (
    build_network,
    forward_of,
    head,
    replace_head,
    set_trainable,
    set_training_mode,
)
from damcrack.train.pixels import PixelNetwork, with_pixel_head
from damcrack.train.weights import ModelInfo, load_model, save_model, snapshot_of
from trainings import lively, small_network

pytestmark = pytest.mark.usefixtures("small")

NEEDS_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm, of the extra encoders")
ENCODERS = [
    *("resnet18", "resnet18_cbam"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet34", "resnet50")),
    pytest.param("efficientnet_lite0", marks=NEEDS_TIMM),
]
INFO = ModelInfo(
    name="pixels",
    network="small",
    classes=("no crack", "crack"),
    image_px=64,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    data_digest="d",
    init_sha256=None,
    teacher_sha256=None,
    best_epoch=1,
    config={},
    pixel_channels=16,
)


@cache
def _built(name: str) -> PixelNetwork:
    network = build_network(name, 2, 0, 16)
    assert isinstance(network, PixelNetwork)
    return network.eval()


def network_of(name: str = "small") -> PixelNetwork:
    network = lively(deepcopy(_built(name)))
    assert isinstance(network, PixelNetwork)
    return network


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENCODERS)
@torch.inference_mode()
def test_every_pixel_gets_a_logit(name: str) -> None:
    """Two logits a tile and one a pixel, of any height and width; at half size one for 2 by 2 pixels."""
    network = _built(name)
    for height, width in ((64, 96), (112, 112), (100, 84), (33, 47)):
        tile, pixels = network.both(torch.zeros(1, 3, height, width))
        assert (tile.shape, pixels.shape) == ((1, 2), (1, height, width))
    halved = network.both_at_half_size(torch.zeros(1, 3, 64, 96))[1]
    assert halved.shape == (1, 32, 48)


@pytest.mark.parametrize("name", ENCODERS)
@torch.inference_mode()
def test_features_are_at_five_strides(name: str) -> None:
    """The encoder halves the image five times, and says how many channels each has."""
    encoder = _built(name).encoder
    features = encoder(torch.zeros(1, 3, 64, 64))
    assert [each.shape[-1] for each in features] == [32, 16, 8, 4, 2]
    assert [each.shape[1] for each in features] == encoder.channels


@torch.inference_mode()
def test_body_and_tile_head_are_the_plain_network_s() -> None:
    """With the plain network's last layer the tiles' logits are its own: the same body, pooled the same way."""
    plain = small_network(0).eval()
    network = with_pixel_head(plain, 2, 16, 1).eval()
    network.tile_head = head(plain)
    images = noise(2, 3, 64, 64)
    torch.testing.assert_close(network(images), plain(images))


@pytest.mark.parametrize("name", ["resnet18", pytest.param("efficientnet_lite0", marks=NEEDS_TIMM)])
@torch.inference_mode()
def test_all_ways_to_ask_agree(name: str) -> None:
    """Tile logits are the same alone and with the pixels'; those are the half-size ones, enlarged."""
    network, images = network_of(name), noise(2, 3, 64, 96)
    tile, pixels = network.both(images)
    tile_again, halved = network.both_at_half_size(images)
    assert torch.equal(network(images), tile)
    assert torch.equal(tile_again, tile)
    enlarged = nn.functional.interpolate(
        halved[:, None], scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(pixels, enlarged[:, 0])
    assert pixels.std() > 0.01


@torch.inference_mode()
def test_pixels_answer_to_what_is_near() -> None:
    """A patch that changes in one corner moves the logits there by far the most."""
    network = network_of()
    images = noise(1, 3, 256, 256)
    changed = images.clone()
    changed[:, :, :16, :16] += 3
    moved = (network.both(changed)[1] - network.both(images)[1]).abs()[0]
    assert moved[:16, :16].mean() > 5 * moved[128:, 128:].mean()


def test_few_pixels_are_crack_at_first() -> None:
    """An untrained head says about 2 %, as many as there are; the loss begins near what it can be."""
    with torch.no_grad():
        prob = torch.sigmoid(_built("resnet18").both(noise(2, 3, 64, 64))[1])
    assert 0.005 < prob.mean() < 0.06


def test_seed_decides_all_weights_and_nothing_else() -> None:
    """The same seed gives the same bits, another seed other heads, and the global generator is not touched."""
    before = torch.random.get_rng_state()
    first, again, other = (snapshot_of(build_network("small", 2, seed, 16)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("encoder.stem.0.weight", "tile_head.weight", "pixel_head.weight", "lateral.0.weight"):
        assert not torch.equal(first[name], other[name])


def test_fresh_heads_keep_the_body() -> None:
    """Every weight of the body is there under the new heads, bit for bit, whatever their seed."""
    body = build_network("small", 1000, 7)
    expected = snapshot_of(body)
    for seed in (0, 1):
        encoder = snapshot_of(with_pixel_head(body, 2, 16, seed).encoder)
        kept = [value for name, value in expected.items() if not name.startswith("fc.")]
        assert all(torch.equal(one, other) for one, other in zip(kept, encoder.values(), strict=True))


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_networks_without_residual_blocks_are_refused(name: str) -> None:
    """The message names the field and how to go without."""
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"^pixel_channels: .* set pixel_channels: null"),
    ):
        build_network(name, 2, 0, 16)


def test_the_tile_head_is_the_head() -> None:
    """Replacing and freezing act on the tile head, also where an attention has linear layers of its own."""
    for name in ("resnet18", "resnet18_cbam"):
        network = deepcopy(_built(name))
        assert head(network) is network.tile_head
        replace_head(network, 5, 0)
        assert network.tile_head.out_features == 5
        set_trainable(network, "head")
        set_training_mode(network)
        assert not network.training


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_frozen_network_answers_with_both_heads(bfloat16: bool) -> None:
    """In float32, exactly or nearly as the network, which stays as it is."""
    network, images = network_of("resnet18").to(memory_format=torch.channels_last), noise(2, 3, 64, 64)
    before = snapshot_of(network)
    with torch.no_grad():
        expected = network.both(images)
    frozen = Frozen(network, bfloat16)
    answers = frozen(images)
    for answer, exact in zip(answers, expected, strict=True):
        assert answer.dtype == torch.float32
        assert torch.equal(answer, exact) != bfloat16
        assert (answer - exact).abs().max() < 0.1 * exact.std() + 0.02
    after = snapshot_of(network)
    assert all(
        torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items()
    )


def test_a_model_with_a_pixel_head_comes_back(tmp_path: Path) -> None:
    """Its width is in model.json; weights and answers are equal."""
    network = network_of()
    save_model(tmp_path, INFO, snapshot_of(network), snapshot_of(network))
    loaded, info = load_model(tmp_path)
    assert info.pixel_channels == 16
    images = noise(1, 3, 64, 64)
    with torch.inference_mode():
        for one, other in zip(forward_of(loaded)(images), network.both(images), strict=True):
            assert torch.equal(one, other)


@torch.inference_mode()
def test_deployed_network_maps_raw_tiles() -> None:
    """Grey values in: the map is that of the network on normalised images, the network stays as it is."""
    network = network_of()
    before = snapshot_of(network)
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(256, (2, 64, 96, 3), dtype=torch.uint8, generator=generator)
    images = normalise(tiles.permute(0, 3, 1, 2), torch.tensor(INFO.mean), torch.tensor(INFO.std))
    expected = torch.sigmoid(network.both_at_half_size(images)[1])
    prob, found = Deployed(network, INFO)(tiles)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert prob.shape == (2,)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@torch.inference_mode()
def test_deployed_tile_is_judged_by_its_most_confident_cells() -> None:
    """The mean of the highest cells at T = 1; another temperature moves the tile's probability alone."""
    tiles = torch.randint(256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prob, found = Deployed(network_of(), INFO)(tiles)
    highest = found.flatten(1).sort(dim=1, descending=True)[0][:, : int(32 * 32 * BLOCK_SHARE)]
    torch.testing.assert_close(prob, highest.mean(1))
    calm, same = Deployed(network_of(), INFO, temperature=2.0)(tiles)
    assert torch.equal(same, found)
    torch.testing.assert_close(torch.logit(calm), torch.logit(prob) / 2)
