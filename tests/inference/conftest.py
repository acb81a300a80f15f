import pytest
import torch

from depth_lightning.inference import Predictor
from depth_lightning.inference.export.graph import export_program
from depth_lightning.models import DepthAnythingV2
from depth_lightning.models.sizes import SIZES, ModelSize


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


@pytest.fixture(scope="session")
def narrow():
    """As small as a network can be that is traced in seconds; every weight random, so that every part counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "narrow", ModelSize(32, 4, 2, (0, 1, 2, 3), 8, (8, 8, 16, 16), grid=(6, 6)))
        torch.manual_seed(0)
        network = DepthAnythingV2("narrow", "metric", max_depth=10.0).eval()
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(0.2 * torch.randn_like(tensor))
        yield network


@pytest.fixture(scope="session")
def program(narrow):
    """The narrow network, traced for every size."""
    return export_program(narrow)
