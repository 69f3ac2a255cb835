import pytest
import torch
from torch import Tensor, nn

from leuk.classifiers.cnn import CNN
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


CONVOLUTION_FLOPS = 2 * (3 * 9) * 8 * 16 * 16
HEAD_FLOPS = 2 * 8 * 16 * 16 * 2


def test_parameters_and_flops_of_a_known_model() -> None:
    cost = measure_cost(Convolution(), 16, "cpu", batch=4)
    trainable = 8 * 27 + 8 + 2 * 8 * 16 * 16 + 2
    assert cost["trainable_parameters"] == trainable
    assert cost["parameters"] == trainable + 16
    assert cost["flops"] == CONVOLUTION_FLOPS + HEAD_FLOPS
    assert (cost["batch"], cost["resolution"]) == (4, 16)
    assert str(cost["device"]).endswith(("thread", "threads"))


def test_every_view_counts() -> None:
    model = CNN(32, optim={"test_views": 8})
    costs = [
        measure_cost(model, 32, "cpu", batch=2, predict=predict)
        for predict in (None, model.predict_logits)
    ]
    assert costs[1]["flops"] == 8 * int(costs[0]["flops"])
    assert costs[1]["parameters"] == costs[0]["parameters"]


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


def test_latencies_are_positive_and_per_image() -> None:
    cost = measure_cost(Convolution(), 16, "cpu", batch=32)
    assert float(cost["latency_ms"]) > 0
    assert float(cost["batch_latency_ms"]) > 0


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


def test_cost_of_a_real_classifier() -> None:
    cost = measure_cost(CNN(resolution=32), 32, "cpu", batch=2)
    assert cost["parameters"] == sum(p.numel() for p in CNN(resolution=32).parameters())
    assert int(cost["flops"]) > 0
