"""The authors' layout: a PyTorch file that their code loads with strict=True."""

from depth_lightning.inference.export.weights import Weights

_USAGE = """
# In the authors' code, whose metric class is given max_depth:
# network.load_state_dict(torch.load("model.pth", weights_only=True))
"""


class Official(Weights):
    """`model.pth`."""

    name = "official"
    file = "model.pth"

    def usage(self, quantity: str) -> str:
        """Python code for this project and for the authors'."""
        return super().usage(quantity) + _USAGE
