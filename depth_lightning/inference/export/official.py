"""The authors' layout: a file of torch that their code loads strictly."""

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
        """With this project and with theirs."""
        return super().usage(quantity) + _USAGE
