"""Networks of the paper's Table 2: sizes as published, attention as written, heads and bodies for transfer."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from damcrack.engine.cbam import CbamBlock, ChannelAttention, SpatialAttention
from damcrack.engine.frozen import Frozen
from damcrack.engine.networks import (
    NETWORKS,
    build_network,
    check_size,
    head,
    replace_head,
    set_trainable,
    set_training_mode,
    without_head,
)
from damcrack.engine.weights import snapshot_of
from damcrack.errors import InputError

Array = npt.NDArray[np.float64]
SMALL = ("resnet18", "resnet18_cbam", "alexnet")

# Parameters with 1,000 classes and multiply-adds at 224 px in G: torchvision's tables of weights; CBAM: Woo et
# al. 2018, Table 4 (11.78 M, 1.815 G), which count neither the batch norm nor the products with the weights.
PUBLISHED = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet18_cbam": (11_779_392, 1.815),
    "alexnet": (61_100_840, 0.714),
    "vgg16": (138_357_544, 15.47),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_size_and_work_are_the_published(name: str) -> None:
    """Parameters equal, and multiply-adds agree within 1 %."""
    with torch.device("meta"):
        network = build_network(name, 1000, 0).eval()
        image = torch.empty(1, 3, 224, 224)
    parameters, work = PUBLISHED[name]
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(work, rel=0.01)


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


@pytest.mark.parametrize("name", SMALL)
def test_head_is_replaced_and_nothing_else(name: str) -> None:
    """The new head has two outputs and its own seed; the body keeps its weights."""
    network = build_network(name, 7, 0)
    before = snapshot_of(network)
    replace_head(network, 2, 1)
    assert head(network).out_features == 2
    after = snapshot_of(network)
    changed = (
        {key for key in before if not torch.equal(before[key], after[key])}
        if before.keys() == after.keys()
        else ()
    )
    assert {key.rsplit(".", 1)[1] for key in changed} == {"weight", "bias"} and len(changed) == 2


@pytest.mark.parametrize("name", SMALL)
def test_training_a_head_leaves_the_body_as_it_was(name: str) -> None:
    """One step changes the head alone; batch norm statistics rest, and dropout is off: two passes are equal."""
    network = build_network(name, 2, 0)
    set_trainable(network, "head")
    set_training_mode(network)
    before, x = snapshot_of(network), torch.randn(4, 3, 64, 64)
    assert torch.equal(network(x), network(x))
    optimiser = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], lr=0.1)
    network(x).square().sum().backward()
    optimiser.step()
    after = snapshot_of(network)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    own = {id(weight) for weight in head(network).parameters()}
    assert changed == {key for key, weight in network.named_parameters() if id(weight) in own}


def test_dropout_is_on_when_all_weights_train() -> None:
    """AlexNet answers differently twice in training mode."""
    network, x = build_network("alexnet", 2, 0), torch.randn(4, 3, 64, 64)
    set_trainable(network, "all")
    set_training_mode(network)
    assert not torch.equal(network(x), network(x))


@pytest.mark.parametrize("name", SMALL)
def test_features_through_the_head_are_the_logits(name: str) -> None:
    """A network is its body followed by its head."""
    network, x = build_network(name, 2, 0).eval(), torch.randn(2, 3, 64, 64)
    logits, last = network(x), head(network)
    torch.testing.assert_close(last(without_head(network)(x)), logits)


@pytest.mark.parametrize("name", SMALL)
def test_folded_bfloat16_network_agrees(name: str) -> None:
    """A frozen copy with folded batch norms says nearly the same, and the network itself is not changed."""
    network, x = build_network(name, 10, 0), torch.randn(8, 3, 64, 64)
    for _ in range(3):
        network.train()(x)  # batch norms with statistics
    before = snapshot_of(network)
    exact, folded = network.eval()(x).detach(), Frozen(network, bfloat16=True)(x)
    assert (folded - exact).abs().max() < 0.03 * exact.abs().max() + 0.01
    assert all(torch.equal(value, before[key]) for key, value in snapshot_of(network).items())


@pytest.mark.parametrize("name", NETWORKS)
def test_least_size_is_the_least_that_works(name: str) -> None:
    """At the least size there is an answer; below, a message says what is needed."""
    least = NETWORKS[name].least_px
    with torch.device("meta"):
        assert build_network(name, 2, 0).eval()(torch.empty(1, 3, least, least)).shape == (1, 2)
    check_size(name, least)
    with pytest.raises(
        InputError, match=f"{name} needs images of {least} px or more, these are {least - 1} px"
    ):
        check_size(name, least - 1)
