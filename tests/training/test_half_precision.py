"""Training in half precision, by autocast and gradient scaler themselves: Lightning's fp16 is bf16 on a CPU."""

import pytest
import torch

from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.models import DepthAnythingV2
from depth_lightning.training.optimizer import adamw

STEPS = 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "dtype", "saturated"),
    [
        ("metric", torch.float16, -80.0),
        ("metric", torch.float16, -20.0),
        ("metric", torch.float16, 80.0),
        ("relative", torch.float16, -80.0),
        ("metric", torch.bfloat16, -20.0),
    ],
)
def test_saturated_outputs_stay_finite_over_500_steps(output, dtype, saturated):
    """Logits of ±80 are a sigmoid's 0 and 1, and −80 a ReLU's 0: a logarithm of 0, or a constant to normalise."""
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny", output)
    torch.nn.init.constant_(network.head.get_parameter("scratch.output_conv2.2.bias"), saturated)
    optimizer = adamw(network.parameter_groups())
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    loss_function = SiLogLoss() if output == "metric" else AffineInvariantLoss()
    image = torch.randn(2, 3, 28, 42)
    target = torch.rand(2, 28, 42) * 9 + 0.5
    mask = torch.rand(2, 28, 42) < 0.8
    overflows = 0
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            prediction = network(image)
        loss = loss_function(prediction, target, mask)
        assert loss.isfinite() and prediction.isfinite().all()
        scaler.scale(loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        overflows += scaler.get_scale() < before
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert overflows < 20
    assert dtype != torch.float16 or scaler.get_scale() >= 1
