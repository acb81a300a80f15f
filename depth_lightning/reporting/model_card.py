"""A model card: what a network is, how it was trained, and how it scores, as README.md of its folder.

The front matter is for the Hugging Face hub. Every number comes from a metrics.json.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from depth_lightning.models.hub import is_noncommercial
from depth_lightning.reporting.tables import recorded_directions, with_arrow

_KNOWN_LICENCES: Final = ("apache-2.0", "cc-by-nc-4.0", "mit", "unknown")
"""To the Hugging Face hub."""


@dataclass(frozen=True)
class ModelCard:
    """The content of a model card.

    Args:
        encoder: vits, …
        output: metric or relative.
        max_depth: in metres, of a metric network.
        size: the shorter side of images in training.
        usage: Python code that predicts depth with the export.
        library: hub name of the library that loads it.
        tags: hub tags in addition to those of every such network.
        recipe: what → how; empty if the network was not trained by this project.
        numbers: content of metrics.json.
        starting_weights: a hub id or a name; None for random initialisation.
        licence: of the starting weights; None if unknown.
        checks: sentences that compare the export with the network.
        limits: sentences in addition to those for every such network.
        focal_px: canonical focal length of a network trained with camera=canonical.
        takes_focal: whether the export multiplies by the focal length itself.
    """

    encoder: str
    output: str
    max_depth: float | None
    size: int
    usage: str
    library: str = "depth-lightning"
    tags: Sequence[str] = ()
    recipe: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Any] | None = None
    starting_weights: str | None = None
    licence: str | None = None
    checks: Sequence[str] = ()
    limits: Sequence[str] = ()
    focal_px: float | None = None
    takes_focal: bool = False

    def __str__(self) -> str:
        title = f"Depth Anything V2 ({quoted(self.encoder)}), {self.output} depth"
        sections = {
            "Use": f"```python\n{self.usage.strip()}\n```",
            "Results": self._results(),
            "Recipe": _table("what", "how", self.recipe) if self.recipe else "Not trained by this project.",
            "Licence": self._licence(),
            "Known limits": _list([*self._limits(), *self.limits]),
            "The export against the network": _list(self.checks),
        }
        body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items() if text)
        return f"{self._front_matter()}\n# {title}\n\n{self._what()}\n\n{body}\n"

    def _front_matter(self) -> str:
        tags = ["depth-anything-v2", "monocular-depth-estimation", f"{self.output}-depth", *self.tags]
        licence = (self.licence or "unknown").lower()
        lines = [
            f"license: {licence if licence in _KNOWN_LICENCES else 'other'}",
            f"library_name: {self.library}",
            "pipeline_tag: depth-estimation",
            "tags:",
            *(f"- {tag}" for tag in tags),
        ]
        if self.starting_weights and re.fullmatch(r"[\w.-]+/[\w.-]+", self.starting_weights):
            lines.append(f"base_model: {self.starting_weights}")
        return "\n".join(["---", *lines, "---", ""])

    def _what(self) -> str:
        gives = (
            f"metres from one image, up to {round(self.max_depth, 2):g} m"
            if self.max_depth is not None
            else "disparity from one image, up to scale and shift: larger is nearer"
        )
        return (
            f"Predicts {gives}. The network is that of Depth Anything V2 (Yang et al., 2024, arXiv:2406.09414). "
            f"Images were seen with their shorter side at {self.size} pixels."
        )

    def _results(self) -> str:
        if self.numbers is None:
            return "Not evaluated: there is no metrics.json."
        protocol = self.numbers["protocol"]
        settings = quoted(", ".join(f"{key} {value}" for key, value in protocol.items() if key != "hash"))
        higher = recorded_directions(self.numbers)
        metrics = self.numbers["metrics"].items()
        split = self.numbers.get("split", "val")
        of = quoted(self.numbers["data"] if split == "val" else f"{self.numbers['data']}, split {split}")
        rows = {with_arrow(name, higher[name]): f"{value:.4f}" for name, value in metrics if value is not None}
        return (
            f"{_table('metric', 'value', rows)}\n\n{self.numbers['images']} images of {of}. "
            f"Protocol {quoted(protocol['hash'])}: {settings}. Numbers under another protocol are not comparable."
        )

    def _licence(self) -> str:
        if self.starting_weights is None:
            return "The network started from random weights. The terms of its training data apply."
        if self.licence is None:
            return f"Derived from {quoted(self.starting_weights)}, whose licence is unknown: check it before sharing."
        sentence = f"Derived from {quoted(self.starting_weights)}, which is licensed under {quoted(self.licence)}."
        return f"{sentence} No commercial use." if is_noncommercial(self.licence) else sentence

    def _limits(self) -> list[str]:
        if self.max_depth is None:
            return ["Disparity has neither unit nor zero: it tells what is nearer, not how near."]
        farthest = f"{round(self.max_depth, 2):g} m"
        if self.focal_px is not None:
            return self._limits_of_canonical(self.focal_px, farthest)
        return [
            f"No depth exceeds {farthest}; anything farther, such as sky, is predicted too near.",
            "Metres are valid for cameras and scenes like the training data's. Another field of view changes them.",
        ]

    def _limits_of_canonical(self, focal_px: float, farthest: str) -> list[str]:
        factor = f"f / {focal_px:g}, where f is the camera's focal length in pixels of the network's input"
        multiplied = (
            f"Metres are the network's output times {factor}: the input focal_px."
            if self.takes_focal
            else f"Metres are the output of this file times {factor}: whoever runs it multiplies. In this project "
            "predict and evaluate do."
        )
        return [
            multiplied,
            f"No depth exceeds {farthest} times that factor; anything farther is predicted too near.",
            "Metres are valid for scenes like the training data's, and any camera whose focal length is known.",
        ]


def quoted(text: Any) -> str:
    """Text from a file as Markdown shows it: on one line, and without links, HTML or table cells of its own."""
    line = "".join(character if character.isprintable() else " " for character in str(text))
    return re.sub(r"([\\`*<>\[\]|])", r"\\\1", line)


def _table(first: str, second: str, rows: Mapping[str, str]) -> str:
    lines = [
        f"| {first} | {second} |",
        "|---|---|",
        *(f"| {quoted(key)} | {quoted(value)} |" for key, value in rows.items()),
    ]
    return "\n".join(lines)


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
