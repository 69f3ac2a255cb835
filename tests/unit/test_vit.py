import pytest
import torch
from small_classifiers import parameters

from leuk.classifiers.transformer import attention_off_cell, off_cell
from leuk.classifiers.vit import ViT
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.gradcam import GradCAM


def small(**values: object) -> ViT:
    torch.manual_seed(0)
    form: dict[str, object] = {"patch": 8, "width": 16, "depth": 2, "mlp": 32, "hidden": 8}
    return ViT(resolution=32, **{**form, **values}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_vit_without_arguments_is_the_thesis_form(norm: str) -> None:
    vit = ViT(norm=norm)  # type: ignore[arg-type]
    assert parameters(vit) == 2_422_786
    assert vit(torch.rand(1, 3, 224, 224)).shape == (1, 2)


def test_position_of_the_norm() -> None:
    post, pre, images = small(), small(norm="pre"), torch.rand(4, 3, 32, 32)
    pre.load_state_dict(post.state_dict())
    assert not torch.allclose(post(images), pre(images))
    tokens = post.encoder.blocks[0](torch.randn(2, 5, 16) * 9)[0]
    spread = tokens.std(dim=-1, correction=0)
    torch.testing.assert_close(spread, torch.ones(2, 5), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch": 15}, r"model\.patch=15: .* choose from \[1, 2, 4, 8, 16, 32\]"),
        ({"patch": 64}, r"model\.patch=64: .* choose from \[1, 2, 4, 8, 16, 32\]"),
        ({"patch": 1, "stem": "conv"}, r"model\.patch=1: .* choose from \[2, 4, 8, 16, 32\]"),
        ({"heads": 3}, r"model\.heads=3: .* model\.width=16; choose from \[1, 2, 4, 8, 16\]"),
        (
            {"head": "prototype", "attention_loss": 1.0},
            r"attention_loss=1\.0: .* model\.head=linear",
        ),
    ],
)
def test_impossible_forms_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**values)


def test_patches_are_in_row_order() -> None:
    vit = small()
    images = torch.zeros(1, 3, 32, 32)
    images[..., 8:16, 16:24] = 1  # second row, third column of 4 x 4
    changed = (vit.tokens(images) - vit.tokens(torch.zeros(1, 3, 32, 32))).abs().sum(dim=2)[0]
    assert changed.nonzero().flatten().tolist() == [6]


def test_attention_belongs_to_the_forward_pass() -> None:
    vit, images = small(), torch.rand(3, 3, 32, 32)
    attention = vit.attention(images)
    assert attention.shape == (3, 2, 4, 17, 17)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(3, 2, 4, 17))
    encoded, _ = vit.encoder.attended(vit.tokens(images))
    torch.testing.assert_close(encoded, vit.encoder(vit.tokens(images)))


def test_attention_off_the_cell_is_counted() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[:, 2, :, :12] = 0.1  # the first column of patches, and half of the second
    outside = off_cell(images, 8, 8).view(4, 4)
    assert outside.tolist() == [[0.0, 0.5, 1.0, 1.0]] * 4
    attention = torch.zeros(1, 1, 17, 17)
    attention[..., 0, 0], attention[..., 0, 2], attention[..., 0, 3] = 0.5, 0.3, 0.2
    off = attention_off_cell([attention, attention], outside.flatten()[None])
    assert float(off) == pytest.approx(0.3 * 0.5 + 0.2)


def test_attention_loss_moves_attention_to_the_cell() -> None:
    vit = small(attention_loss=1.0)
    images = torch.zeros(8, 3, 32, 32)
    images[..., 8:24, 8:24] = torch.rand(8, 3, 16, 16)
    labels = torch.arange(8) % 2
    optimizer = torch.optim.Adam(vit.parameters(), 1e-2)
    costs = []
    for _ in range(10):
        logits, cost = vit.training_logits(images, labels)
        torch.testing.assert_close(logits, vit(images))
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(float(cost.detach()))
    assert 0 < costs[-1] < 0.8 * costs[0] <= 0.8


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("depth", [1, 3])
def test_patches_have_gradients_in_the_layer_of_gradcam(norm: str, depth: int) -> None:
    vit, images = small(norm=norm, depth=depth), torch.rand(2, 3, 32, 32)
    kept: list[torch.Tensor] = []
    vit.cam_layer.register_forward_hook(lambda *args: kept.append(args[2]))
    vit.encoder.blocks[-1].register_forward_hook(lambda *args: kept.append(args[2][0]))
    vit(images)[:, Label.ALL].sum().backward(inputs=kept)
    grid, last = kept
    assert grid.shape == (2, 16, 4, 4)
    assert grid.grad is not None
    assert grid.grad.abs().amax(dim=1).min() > 0
    assert last.shape == (2, 1, 16)  # the last block computes only [CLS]


def test_token_layers_are_refused_by_gradcam(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = small()
    monkeypatch.setattr(ViT, "cam_layer", property(lambda self: self.encoder.last_norm))
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(ConfigError, match=r"\(B, C, h, w\)"):
        GradCAM().attribute(vit, images, Label.ALL, images)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_cls_alone_through_the_last_block_equals_cls_of_all_tokens(norm: str) -> None:
    vit = small(norm=norm, depth=3).double()
    patches = torch.randn(3, 16, 16, dtype=torch.float64)
    whole, short = vit.encoder(patches)[:, 0], vit.encoder.cls(patches)
    torch.testing.assert_close(short, whole, rtol=1e-12, atol=1e-12)
    weights = [
        torch.autograd.grad(cls.square().sum(), list(vit.encoder.blocks.parameters()))
        for cls in (whole, short)
    ]
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-12)


def test_attention_on_a_cpu_equals_the_fused_kernel() -> None:
    block = small().encoder.blocks[0]
    tokens = torch.randn(2, 17, 16)
    fused = block.attention(tokens, tokens, tokens, need_weights=False)[0]
    first = block.norm1(tokens + fused)
    torch.testing.assert_close(block(tokens)[0], block.norm2(first + block.mlp(first)))


def test_drop_path_rises_from_none_to_its_share_in_the_last_block() -> None:
    blocks = small(depth=4, drop_path=0.3).encoder.blocks
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
