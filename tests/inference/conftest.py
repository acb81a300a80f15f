import pytest
import torch

from depth_lightning.inference import Predictor
from depth_lightning.models import DepthAnythingV2


def random_network(output="metric"):
    """Small and untrained, but with a head whose output varies over the image."""
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny", output, max_depth=10.0).eval()
    with torch.no_grad():
        for parameter in network.head.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5)
    return network


@pytest.fixture(scope="session")
def network():
    return random_network()


@pytest.fixture(scope="session")
def predictor(network):
    return Predictor(network, size=42, device="cpu")


@pytest.fixture(scope="session")
def relative():
    return Predictor(random_network("relative"), size=42, device="cpu")
