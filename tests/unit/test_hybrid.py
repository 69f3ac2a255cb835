import pytest
import torch
from torch import Tensor, nn

from leuk.classifiers.hybrid import FUSIONS, Attention, Gated, Hybrid
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.gradcam import GradCAM, layers_of

CONVOLUTIONS = 388_416 + 960
VECTOR = 256 * 256 + 256
BLOCKS = 6 * 527_104
PERCEPTRON = 256 * 512 + 512 + 512 * 256 + 256 + 257


def small(**values: object) -> Hybrid:
    torch.manual_seed(0)
    form: dict[str, object] = {
        "widths": (4, 8, 8),
        "patch": 2,
        "stride": 2,
        "width": 16,
        "depth": 2,
        "mlp": 32,
        "hidden": (12, 8),
    }
    return Hybrid(resolution=32, **{**form, **values}).eval()  # type: ignore[arg-type]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(("patch", "stride", "tokens"), [(4, 4, 49), (16, 6, 9)])
def test_forms_at_224_px_have_the_parameters_of_their_layers(
    patch: int, stride: int, tokens: int
) -> None:
    with torch.device("meta"):
        hybrid = Hybrid(patch=patch, stride=stride)
        assert hybrid.attention(torch.rand(1, 3, 224, 224)).shape == (
            1,
            6,
            4,
            tokens + 1,
            tokens + 1,
        )
    projection = patch * patch * 256 * 256 + 256
    positions = 256 + (tokens + 1) * 256
    expected = CONVOLUTIONS + VECTOR + projection + positions + BLOCKS + PERCEPTRON
    assert parameters(hybrid) == expected
    assert expected == {49: 4_942_849, 9: 20_661_249}[tokens]


def test_default_is_49_tokens() -> None:
    with torch.device("meta"):
        assert parameters(Hybrid()) == 4_942_849


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"patch": 16, "stride": 16},
            r"patch=16 .*stride=16: .*28 x 28 map; .*\[1, 2, 3, 4, 6, 12\]",
        ),
        ({"patch": 4, "stride": 5}, r"stride from \[1, 2, 3, 4\], .*\[1, 2, 4, 7, 14, 28\]"),
        ({"patch": 4, "stride": 6}, r"stride from \[1, 2, 3, 4\]"),
        ({"patch": 28, "stride": 4}, r"stride from \[28\]"),
        ({"patch": 29, "stride": 1}, r"patch=29: larger than the 28 x 28 feature map"),
    ],
)
def test_patches_that_do_not_cover_the_map_are_refused(
    values: dict[str, int], message: str
) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        Hybrid(**values)  # type: ignore[arg-type]


def test_resolution_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.resolution=30: .* multiple of 4, such as 32"):
        Hybrid(resolution=30, widths=(4, 8, 8))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_reads_both_branches(fusion: str) -> None:
    hybrid = small(fusion=fusion)
    branches = (hybrid.vector[0], hybrid.embed)
    hybrid(torch.rand(4, 3, 32, 32))[:, 1].sum().backward()
    for layer in branches:
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0


def test_attention_and_gates_weigh_the_branches() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 8), torch.randn(3, 8)
    attention = Attention(8)
    shares = attention.shares(torch.stack([first, second], dim=1))[..., 0]
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
    expected = shares[:, :1] * first + shares[:, 1:] * second
    torch.testing.assert_close(attention(first, second), expected)
    gated = Gated(8)
    nn.init.zeros_(gated.gate.weight)
    nn.init.constant_(gated.gate.bias, 50.0)
    torch.testing.assert_close(gated(first, second), first)


def test_attention_weighs_by_the_tanh_of_its_keys() -> None:
    """With keys as they come and queries of one, weights are exp of the sum of tanh."""
    attention = Attention(2)
    with torch.no_grad():
        attention.key.weight.copy_(torch.eye(2))
        attention.key.bias.zero_()
        attention.query.weight.fill_(1)
    one, other = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])
    logits = torch.stack([one.tanh().sum(), other.tanh().sum()])
    shares = attention.shares(torch.stack([one, other], dim=1))[0, :, 0]
    torch.testing.assert_close(shares, logits.softmax(dim=0))


def test_the_convolutional_branch_reads_the_mean_of_the_map() -> None:
    hybrid = small()
    feature_map = torch.rand(2, 8, 8, 8)
    dense = hybrid.vector[0]
    expected = dense(feature_map.mean(dim=(2, 3))).relu()
    torch.testing.assert_close(hybrid._pooled(feature_map), expected)


def test_the_perceptron_is_of_gelus() -> None:
    layers = [type(layer) for layer in small(hidden=(12, 8)).perceptron]
    assert layers == [nn.Linear, nn.GELU, nn.Dropout, nn.Linear, nn.GELU]


def test_patches_of_the_map_determine_both_branches() -> None:
    hybrid, images = small(), torch.rand(2, 3, 32, 32)
    assert hybrid.has_patches
    tokens = hybrid.tokens(images)
    assert tokens.shape == (2, 16, 8 * 2 * 2)
    torch.testing.assert_close(hybrid.from_tokens(tokens), hybrid(images))
    feature_map = hybrid.feature_map(images)
    feature_map[:, :, 2:4, 4:6] = 0  # second row, third column of 4 x 4
    tokens[:, 6] = 0
    torch.testing.assert_close(
        hybrid.from_tokens(tokens), hybrid.logits(hybrid._features(feature_map))
    )


def test_overlapping_patches_are_refused() -> None:
    hybrid = small(patch=4, stride=2)
    assert not hybrid.has_patches
    assert hybrid(torch.rand(2, 3, 32, 32)).shape == (2, 2)
    for method in (hybrid.tokens, hybrid.from_tokens):
        with pytest.raises(ConfigError, match=r"model\.stride=2: patches of side 4 overlap"):
            method(torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_overlapping_patches_are_embedded_as_by_a_convolution(
    layout: torch.memory_format,
) -> None:
    hybrid = small(patch=4, stride=2).to(memory_format=layout)
    feature_map = hybrid.feature_map(torch.rand(2, 3, 32, 32).to(memory_format=layout))
    embed = hybrid.embed
    convolved = nn.functional.conv2d(feature_map, embed.weight, embed.bias, stride=2)
    expected = convolved.flatten(2).transpose(1, 2)
    torch.testing.assert_close(hybrid._embedded(feature_map), expected)
    gradients = [
        torch.autograd.grad(embedded.square().sum(), hybrid.embed.weight, retain_graph=True)[0]
        for embedded in (hybrid._embedded(feature_map), expected)
    ]
    torch.testing.assert_close(*gradients)


def test_gradcam_sees_every_layer_of_overlapping_patches() -> None:
    hybrid, images = small(patch=4, stride=2), torch.rand(2, 3, 32, 32)
    assert "embed" in layers_of(hybrid)
    for layer in layers_of(hybrid):
        assert not GradCAM(layer=layer).attribute(hybrid, images, 1, images).degenerate.all()


@pytest.mark.parametrize(("patch", "stride"), [(2, 2), (4, 2)])
def test_attention_loss_uses_the_pixels_of_the_patches(patch: int, stride: int) -> None:
    hybrid = small(patch=patch, stride=stride, attention_loss=0.5)
    images = torch.zeros(2, 3, 32, 32)
    images[..., :16] = torch.rand(2, 3, 32, 16)
    logits, cost = hybrid.training_logits(images, torch.tensor([0, 1]))
    torch.testing.assert_close(logits, hybrid(images))
    side, step = hybrid.patch_pixels
    starts = range(0, 32 - side + 1, step)
    outside = torch.tensor([max(0, left + side - 16) / side for left in starts]).clamp(max=1)
    mass = hybrid.attention(images)[:, :, :, 0, 1:].unflatten(3, (len(starts), -1))
    assert float(cost.detach()) == pytest.approx(
        0.5 * float((mass * outside).sum(dim=(3, 4)).mean().detach())
    )


@pytest.mark.parametrize("head", ["linear", "prototype"])
def test_gradcam_sees_the_last_convolution(head: str) -> None:
    hybrid = small(head=head)
    kept: list[Tensor] = []
    hybrid.cam_layer.register_forward_hook(lambda *args: kept.append(args[2]))
    images = torch.rand(2, 3, 32, 32)
    hybrid(images)[:, Label.ALL].sum().backward(inputs=kept)
    assert kept[0].shape == (2, 8, 8, 8)
    assert kept[0].grad is not None
    assert kept[0].grad.abs().sum() > 0
    assert not GradCAM().attribute(hybrid, images, Label.ALL, images).degenerate.any()
