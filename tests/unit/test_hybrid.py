import pytest
import torch
from small_classifiers import parameters
from torch import nn

from leuk.classifiers.hybrid import Fusion, Hybrid
from leuk.errors import ConfigError
from leuk.explain.gradcam import GradCAM, layers_of


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


@pytest.mark.parametrize(
    ("values", "tokens", "count"),
    [({}, 49, 4_942_849), ({"patch": 16, "stride": 6}, 9, 20_661_249)],
)
def test_forms_of_the_thesis_at_224_px(values: dict[str, int], tokens: int, count: int) -> None:
    with torch.device("meta"):
        hybrid = Hybrid(**values)  # type: ignore[arg-type]
        attention = hybrid.attention(torch.rand(1, 3, 224, 224))
    assert attention.shape == (1, 6, 4, tokens + 1, tokens + 1)
    assert parameters(hybrid) == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"patch": 16, "stride": 16},
            r"patch=16 .*stride=16: .*28 x 28 map; .*\[1, 2, 3, 4, 6, 12\]",
        ),
        ({"patch": 4, "stride": 5}, r"stride from \[1, 2, 3, 4\], .*\[1, 2, 4, 7, 14, 28\]"),
        ({"patch": 28, "stride": 4}, r"stride from \[28\]"),
        ({"patch": 29, "stride": 1}, r"patch=29: larger than the 28 x 28 feature map"),
        ({"resolution": 30}, r"data\.resolution=30: .* multiple of 8, such as 32"),
    ],
)
def test_patches_that_do_not_cover_the_map_are_refused(
    values: dict[str, int], message: str
) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        Hybrid(**values)  # type: ignore[arg-type]


class TestFusion:
    one, other = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])

    def test_add_and_concat(self) -> None:
        assert Fusion("add", 2)(self.one, self.other).tolist() == [[2.5, 2.0]]
        fusion = Fusion("concat", 2)
        assert fusion(self.one, self.other).tolist() == [[2.0, -1.0, 0.5, 3.0]]
        assert fusion.width == 4

    def test_a_gate_of_one_takes_the_convolutional_branch(self) -> None:
        fusion = Fusion("gated", 2)
        nn.init.zeros_(fusion.gate.weight)
        nn.init.constant_(fusion.gate.bias, 50.0)
        torch.testing.assert_close(fusion(self.one, self.other), self.one)

    def test_attention_weighs_by_the_tanh_of_its_keys(self) -> None:
        """With keys as they come and queries of one, weights are exp of the sum of tanh."""
        fusion = Fusion("attention", 2)
        with torch.no_grad():
            fusion.key.weight.copy_(torch.eye(2))
            fusion.key.bias.zero_()
            fusion.query.weight.fill_(1)
        first, second = torch.stack([self.one.tanh().sum(), self.other.tanh().sum()]).softmax(dim=0)
        expected = first * self.one + second * self.other
        torch.testing.assert_close(fusion(self.one, self.other), expected)


def test_features_are_a_perceptron_on_the_mean_of_the_map_plus_cls() -> None:
    hybrid, images = small(), torch.rand(2, 3, 32, 32)
    feature_map = hybrid.body(images)
    vector, (first, _, _, second, _) = hybrid.vector[0], hybrid.perceptron
    patches = hybrid.embed(feature_map).flatten(2).transpose(1, 2)
    fused = vector(feature_map.mean(dim=(2, 3))).relu() + hybrid.encoder(patches)[:, 0]
    gelu = nn.functional.gelu
    torch.testing.assert_close(hybrid.features(images), gelu(second(gelu(first(fused)))))
    assert feature_map.shape == (2, 8, 8, 8)


def test_patches_of_the_map_determine_both_branches() -> None:
    hybrid, images = small(), torch.rand(2, 3, 32, 32)
    tokens, feature_map = hybrid.tokens(images), hybrid.body(images)
    assert tokens.shape == (2, 16, 8 * 2 * 2)
    feature_map[:, :, 2:4, 4:6] = 0  # second row, third column of 4 x 4
    tokens[:, 6] = 0
    hybrid.body = lambda _: feature_map  # type: ignore[method-assign]
    torch.testing.assert_close(hybrid.from_tokens(tokens), hybrid(images))


class TestOverlappingPatches:
    def test_cannot_be_explained_by_patches(self) -> None:
        hybrid = small(patch=4, stride=2)
        assert not hybrid.has_patches
        for method in (hybrid.tokens, hybrid.from_tokens):
            with pytest.raises(ConfigError, match=r"model\.stride=2: patches of side 4 overlap"):
                method(torch.rand(2, 3, 32, 32))

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_are_embedded_as_by_a_convolution(self, layout: torch.memory_format) -> None:
        embed = small(patch=4, stride=2).to(memory_format=layout).embed
        feature_map = torch.rand(2, 8, 8, 8).to(memory_format=layout)
        expected = nn.functional.conv2d(feature_map, embed.weight, embed.bias, stride=2)
        torch.testing.assert_close(embed(feature_map), expected)
        gradients = [
            torch.autograd.grad(embedded.square().sum(), embed.weight)[0]
            for embedded in (embed(feature_map), expected)
        ]
        torch.testing.assert_close(*gradients)

    def test_gradcam_uses_every_layer(self) -> None:
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
    torch.testing.assert_close(cost, 0.5 * (mass * outside).sum(dim=(3, 4)).mean())
