"""Networks of the paper's Table 2: sizes as published, attention as written, heads and bodies for transfer."""

from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode

from damcrack.files import InputError
from damcrack.train.frozen import Frozen
from damcrack.train.networks import (
    NETWORKS,
    CbamBlock,
    ChannelAttention,
    SpatialAttention,
    build_network,
    check_size,
    head,
    replace_head,
    set_trainable,
    set_training_mode,
)
from damcrack.train.weights import snapshot_of
from trainings import lively

Array = npt.NDArray[np.float64]

# Parameters with 1,000 classes and multiply-adds in G at 224 px, or the side given: torchvision's tables of weights;
# CBAM: Woo et al. 2018, Table 4 (11.78 M, 1.815 G), whose last digits are from the sum in the test below;
# EfficientNet-Lite: its authors' README (4.7, 5.4, 6.1 M; 0.407, 0.631, 0.899 G), whose multiply-adds are 4 to 6 %
# more than those of the layers; digits as counted in timm.
PUBLISHED = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet18_cbam": (11_779_392, 1.815),
    "alexnet": (61_100_840, 0.714),
    "vgg16": (138_357_544, 15.47),
    "efficientnet_lite0": (4_652_008, 0.385),
    "efficientnet_lite1": (5_416_680, 0.600),
    "efficientnet_lite2": (6_092_072, 0.860),
}
PUBLISHED_AT_PX = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}
NEEDS_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm, of the extra encoders")
NAMES = [pytest.param(name, marks=NEEDS_TIMM) if "lite" in name else name for name in NETWORKS]
# Weights are made for one of each kind of block, and one with dropout.
WITH_WEIGHTS = [
    *("resnet18", "resnet18_cbam"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "alexnet")),
    pytest.param("efficientnet_lite0", marks=NEEDS_TIMM),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_size_and_work_are_the_published(name: str) -> None:
    """Parameters equal, and multiply-adds agree within 1 %."""
    with torch.device("meta"):
        network = build_network(name, 1000, 0).eval()
        side = PUBLISHED_AT_PX.get(name, 224)
        image = torch.empty(1, 3, side, side)
    parameters, work = PUBLISHED[name]
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(work, rel=0.01)


def test_attention_adds_what_its_layers_hold() -> None:
    """Two blocks of each width: a perceptron C - C/16 - C, and 7 x 7 x 2 weights with a batch norm's two."""
    perceptrons = sum(2 * c * (c // 16) + c // 16 + c for c in (64, 128, 256, 512))
    added = 2 * (perceptrons + 4 * (7 * 7 * 2 + 2))
    assert PUBLISHED["resnet18_cbam"][0] - PUBLISHED["resnet18"][0] == added == 89_880
    assert PUBLISHED["resnet18_cbam"][0] / 1e6 == pytest.approx(11.78, abs=0.005)


@cache
def _built(name: str) -> nn.Module:
    return build_network(name, 2, 0)


def network_of(name: str) -> nn.Module:
    return lively(deepcopy(_built(name)))


def random_images(num: int) -> torch.Tensor:
    return torch.randn(num, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def reference_channel_attention(x: Array, weights: dict[str, Array]) -> Array:
    """Pixel by pixel sums and maxima, one image and channel at a time."""

    def perceptron(v: Array) -> Array:
        hidden = np.maximum(weights["mlp.0.weight"] @ v + weights["mlp.0.bias"], 0)
        return weights["mlp.2.weight"] @ hidden + weights["mlp.2.bias"]

    out = np.empty_like(x)
    for number, image in enumerate(x):
        means = np.array([channel.sum() / channel.size for channel in image])
        peaks = np.array([max(channel.ravel()) for channel in image])
        weight = sigmoid(perceptron(means) + perceptron(peaks))
        out[number] = [channel * factor for channel, factor in zip(image, weight, strict=True)]
    return out


def reference_spatial_attention(x: Array, weights: dict[str, Array]) -> Array:
    """The convolution as sums over shifted windows, the batch norm by its formula."""
    kernel, out = weights["conv.weight"][0], np.empty_like(x)
    for number, image in enumerate(x):
        seen = np.pad(np.stack([image.max(0), image.mean(0)]), ((0, 0), (3, 3), (3, 3)))
        height, width = image.shape[1:]
        answer = np.zeros((height, width))
        for row in range(height):
            for column in range(width):
                answer[row, column] = (seen[:, row : row + 7, column : column + 7] * kernel).sum()
        scaled = (answer - weights["bn.running_mean"]) / np.sqrt(weights["bn.running_var"] + 1e-5)
        out[number] = image * sigmoid(scaled * weights["bn.weight"] + weights["bn.bias"])
    return out


@pytest.mark.parametrize(
    ("module", "reference"),
    [(ChannelAttention(32), reference_channel_attention), (SpatialAttention(), reference_spatial_attention)],
    ids=["channel", "spatial"],
)
def test_attention_equals_a_numpy_forward(module: nn.Module, reference: Any) -> None:
    """In evaluation mode, float64, with random weights and statistics."""
    random = torch.Generator().manual_seed(0)
    module = module.double().eval()
    state = {
        name: torch.rand(value.shape, generator=random, dtype=torch.float64)
        + (0.5 if "var" in name else -0.3)
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }
    module.load_state_dict(state, strict=False)
    x = torch.randn(2, 32, 9, 7, generator=random, dtype=torch.float64)
    weights = {name: value.numpy() for name, value in state.items()}
    np.testing.assert_allclose(module(x).detach().numpy(), reference(x.numpy(), weights), rtol=1e-10)


def test_attention_acts_on_the_branch_before_the_addition() -> None:
    """A block is relu(x + spatial(channel(branch))): with the attentions taken out it is the plain block."""
    block = CbamBlock(32, 32).eval()
    x = torch.randn(2, 32, 8, 8)
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    expected = torch.relu(x + block.spatial_attention(block.channel_attention(branch)))
    torch.testing.assert_close(block(x), expected)


def test_attention_blocks_start_as_the_identity_and_learn() -> None:
    """Their residual branches start at zero like a plain ResNet's, and gradient reaches what opens them."""
    block = deepcopy(_built("resnet18_cbam")).get_submodule("layer1.0")
    assert isinstance(block, CbamBlock)
    x = torch.rand(4, 64, 16, 16)
    out = block.train()(x)
    assert torch.equal(out, x)
    (out * torch.randn_like(out)).sum().backward()
    assert (block.bn2.weight.grad != 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_head_is_replaced_and_nothing_else(name: str) -> None:
    """The new head has seven outputs; the body keeps its weights."""
    with torch.device("meta"):
        network = build_network(name, 2, 0)
    before = dict(network.named_parameters())
    replace_head(network, 7, 1)
    assert head(network).out_features == 7
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert [key for key in before if after[key] is not before[key]] == list(before)[-2:]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_training_a_head_leaves_the_body_as_it_was(name: str) -> None:
    """One step changes the head alone; batch norm statistics rest, and dropout is off: two passes are equal."""
    network, x = network_of(name), random_images(4)
    set_trainable(network, "head")
    set_training_mode(network)
    before, logits = snapshot_of(network), network(x)
    assert torch.equal(network(x), logits)
    optimiser = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], lr=0.1)
    logits.square().sum().backward()
    optimiser.step()
    changed = [key for key, value in network.state_dict().items() if not torch.equal(before[key], value)]
    assert changed == list(before)[-2:]


@pytest.mark.slow
def test_dropout_is_on_when_all_weights_train() -> None:
    """Two passes differ in training mode, and are equal in evaluation mode."""
    network, x = network_of("alexnet"), random_images(2)
    set_trainable(network, "all")
    set_training_mode(network)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("name", WITH_WEIGHTS)
@torch.inference_mode()
def test_folded_network_agrees(name: str) -> None:
    """Without its batch norms a network says the same in float32."""
    network, x = network_of(name), random_images(2)
    folded = fuse(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    exact = network(x)
    assert (folded(x) - exact).abs().max() < 1e-4 * exact.abs().max()


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet18_cbam", pytest.param("alexnet", marks=pytest.mark.slow)]
)
@torch.inference_mode()
def test_folded_bfloat16_network_agrees(name: str) -> None:
    """A frozen copy says nearly the same, and the network itself is not changed."""
    network, x = network_of(name), random_images(8)
    before, exact = snapshot_of(network), network(x)
    assert (Frozen(network, bfloat16=True)(x) - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_least_size_is_the_least_that_works(name: str) -> None:
    """At the least size there is an answer; below, a message says what is needed."""
    least = NETWORKS[name].min_px
    with torch.device("meta"):
        assert build_network(name, 2, 0).eval()(torch.empty(1, 3, least, least)).shape == (1, 2)
    check_size(name, least)
    with pytest.raises(
        InputError, match=f"{name} needs images of {least} px or more, these are {least - 1} px"
    ):
        check_size(name, least - 1)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_below_the_least_size_pooling_leaves_nothing(name: str) -> None:
    """One pixel less and torch itself has no answer: these sizes are not cautious guesses."""
    side = NETWORKS[name].min_px - 1
    with torch.device("meta"), pytest.raises(RuntimeError, match="too small"):
        build_network(name, 2, 0).eval()(torch.empty(1, 3, side, side))
