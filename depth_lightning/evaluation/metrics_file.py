"""Reading a metrics.json, which may have been edited since, or be another program's."""

import json
from pathlib import Path
from typing import Any

from depth_lightning.data.reading import BrokenError, read_text, reading
from depth_lightning.metrics import Protocol


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a metrics.json of evaluate.py or train.py; `protocol` is missing if point pairs were scored.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: it is something else.
    """
    with reading(path, "a metrics.json of evaluate.py or train.py", "Evaluate again."):
        content: dict[str, Any] = json.loads(read_text(path))
        facts = {
            **{f"metrics.{name}": (value, (int, float)) for name, value in content["metrics"].items()},
            **{f"higher_is_better.{name}": (value, (bool,)) for name, value in _group(content, "higher_is_better")},
            **{name: (content.get(name), (str,)) for name in ("data", "split", "checkpoint", "weights")},
            "images": (content["images"], (int,)),
        }
        for name, (value, kinds) in facts.items():
            if value is not None and type(value) not in kinds:
                raise BrokenError(f"expected {name} as {kinds[-1].__name__}, found {value!r:.80}. Evaluate again.")
        if "protocol" in content:
            fields = {key: value for key, value in _group(content, "protocol") if key != "hash"}
            Protocol(**fields)
            content["protocol"] = {**fields, "hash": str(content["protocol"]["hash"])}
        return content


def _group(content: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    return [*content.get(name, {}).items()]
