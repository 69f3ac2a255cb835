import pytest
import torch
from torch import Tensor, nn

from leuk.metrics.cost import measure_cost


class Convolution(nn.Module):
    """A convolution from 3 to 8 channels, a frozen layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.activation = nn.ReLU()
        self.head = nn.Linear(8 * 16 * 16, 2)
        self.norm.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.activation(self.norm(self.convolution(images))).flatten(1))


def test_memory_is_weights_images_and_live_activations() -> None:
    cost = measure_cost(Convolution(), 16, "cpu", batch=4)
    images, activation = 4 * 3 * 16 * 16 * 4, 4 * 8 * 16 * 16 * 4
    model = Convolution()
    weights = sum(4 * tensor.numel() for tensor in model.parameters())
    memory = int(cost["memory_bytes"])
    # Two activations are live at a time: the input and the output of a layer.
    assert memory >= images + weights + 2 * activation
    assert memory < images + weights + 4 * activation
    larger = int(measure_cost(model, 16, "cpu", batch=8)["memory_bytes"])
    assert larger - memory == pytest.approx(memory - weights, rel=0.1)


def test_fused_attention_is_counted() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.flatten(1).view(len(images), -1, 64))

    tokens = 3 * 16 * 16 // 64
    projections = 2 * tokens * (64 * 192 + 64 * 64 + 2 * 64 * 128)
    attention = 2 * 2 * tokens * tokens * 64
    assert measure_cost(Encoder(), 16, "cpu", batch=2)["flops"] == projections + attention
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("training", [True, False])
def test_modules_keep_their_mode_and_statistics(training: bool) -> None:
    model = Convolution().train(training)
    model.norm.eval()
    before = model.norm.running_mean
    assert before is not None
    kept = before.clone()
    measure_cost(model, 16, "cpu", batch=2)
    assert (model.training, model.head.training, model.norm.training) == (training, training, False)
    torch.testing.assert_close(model.norm.running_mean, kept)


class Fixed(nn.Module):
    """Linear map of 3 * 4 * 4 numbers to 2, with frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 2)
        self.still = nn.Parameter(torch.zeros(7), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.linear(images.flatten(1))
        return found


def test_cost_of_a_linear_map_by_hand() -> None:
    model = Fixed()
    found = measure_cost(model, 4, "cpu", batch=3)
    assert found["parameters"] == 48 * 2 + 2 + 7
    assert found["trainable_parameters"] == 48 * 2 + 2
    assert found["flops"] == 2 * 48 * 2
    twice = measure_cost(
        model, 4, "cpu", batch=3, predict=lambda images: model(images) + model(images)
    )
    assert twice["flops"] == 2 * 2 * 48 * 2


def test_latencies_are_milliseconds_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leuk.metrics.cost._seconds", lambda predict, images: 0.012)
    found = measure_cost(Fixed(), 4, "cpu", batch=3)
    assert found["latency_ms"] == pytest.approx(12)
    assert found["batch_latency_ms"] == pytest.approx(4)
