"""The interface of an export layout."""

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
    """The outcome of an export, compared with the network."""

    notes: Sequence[str]
    """Sentences for the model card."""
    run: Runner | None = None
    """None for weights, which cannot be run by themselves."""
    differences: Sequence[Difference] = ()
    """From the network, at several sizes."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Name of what ran → time for one image of the first of these sizes."""


class Layout(ABC):
    """An export format. Creating an instance checks its options and that its packages are installed.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """

    name: ClassVar[str]
    packages: ClassVar[Sequence[str]] = ()
    """Modules that it needs."""
    extra: ClassVar[str] = "export"
    """The extra that installs them."""
    takes_adapters: ClassVar[bool] = False
    """Whether it writes adapters; otherwise they are merged into the network first."""
    takes_focal: ClassVar[bool] = False
    """Whether its files take a focal length, and give metres for networks with a canonical one."""
    library: ClassVar[str] = "depth-lightning"
    """The library that loads it, under its Hugging Face hub name."""
    tags: ClassVar[Sequence[str]] = ()
    """Hub tags in addition to those of every such network."""

    def __init__(self) -> None:
        require(f"layout={self.name}", *self.packages, extra=self.extra)

    @abstractmethod
    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """Write a network into a new folder, and compare the result with the network.

        Args:
            network: on the CPU, in evaluation mode.
            folder: to create.
            metadata: plain values to write with the weights.
            side: the shorter side of the images that the network was trained on, in pixels.

        Raises:
            ValueError: the export differs from the network.
        """

    @abstractmethod
    def usage(self, quantity: str) -> str:
        """Python code that uses it from within its folder and names the output `quantity`."""

    @property
    def limits(self) -> Sequence[str]:
        """Sentences for the model card, in addition to those for every such network."""
        return ()


def require(what: str, *modules: str, extra: str = "export") -> None:
    """Check that modules from an extra are installed.

    Raises:
        ModuleNotFoundError: one is missing.
    """
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"{what} needs {', '.join(missing)}, not installed: pip install 'depth-lightning[{extra}]'"
        )
