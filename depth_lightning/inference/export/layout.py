"""What a layout has to bring along."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from depth_lightning.inference.export.comparison import Difference, Runner
from depth_lightning.models import DepthAnythingV2


@dataclass(frozen=True)
class Export:
    """What was written, and how it compares with the network."""

    notes: Sequence[str]
    """Sentences for the model card."""
    run: Runner | None = None
    """None for weights, which do not run by themselves."""
    differences: Sequence[Difference] = ()
    """From the network, at several sizes."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Of one image of the first of these sizes, by the names of what ran."""


class Layout(ABC):
    """Files of one form. Making an instance checks its options and that its packages are installed.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """

    name: ClassVar[str]
    packages: ClassVar[Sequence[str]] = ()
    """Modules that come with the extra `export`."""
    library: ClassVar[str] = "depth-lightning"
    """What loads it, in the Hugging Face hub's words."""
    tags: ClassVar[Sequence[str]] = ()
    """The hub's, beyond those of every such network."""

    def __init__(self) -> None:
        require(f"layout={self.name}", *self.packages)

    @abstractmethod
    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """Write a network into a new folder, and compare it with what was written.

        Args:
            network: on the CPU, in evaluation mode.
            folder: to create.
            metadata: plain values to be written with the weights.
            side: the shorter side of the images that the network was trained on, in pixels.

        Raises:
            ValueError: what was written is not what the network is.
        """

    @abstractmethod
    def usage(self, quantity: str) -> str:
        """Python that uses it, from the folder that it lies in, and calls its output `quantity`."""

    @property
    def limits(self) -> Sequence[str]:
        """Sentences for the model card, beyond those that go for every such network."""
        return ()


def require(what: str, *modules: str) -> None:
    """See that packages which come with the extra `export` are there.

    Raises:
        ModuleNotFoundError: one is not.
    """
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"{what} needs {', '.join(missing)}, not installed here: pip install 'depth-lightning[export]'"
        )
