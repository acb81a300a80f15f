import json

import pytest

from depth_lightning.evaluation.metrics_file import read_metrics
from depth_lightning.metrics import Protocol

PROTOCOL = Protocol(max_depth=80.0)
GOOD = {
    "metrics": {"abs_rel": 0.1, "mine": None},
    "higher_is_better": {"abs_rel": False, "mine": True},
    "images": 3,
    "data": "NYUDepthV2 nyu",
    "checkpoint": "run/checkpoints/best.ckpt",
    "weights": None,
    "protocol": {**PROTOCOL.to_dict(), "hash": PROTOCOL.hash},
}
AGAIN = r"Evaluate again\.$"


def test_what_an_evaluation_wrote_is_read_as_it_is(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(GOOD))
    assert read_metrics(tmp_path / "metrics.json") == GOOD


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"metrics": {"abs_rel": "0.1"}}, r"expected metrics\.abs_rel as float, found '0\.1'"),
        ({"higher_is_better": {"abs_rel": 1}}, r"expected higher_is_better\.abs_rel as bool, found 1"),
        ({"images": {}}, r"expected images as int, found \{\}"),
        ({"checkpoint": {"a": 1}}, r"expected checkpoint as str, found \{'a': 1\}"),
        ({"protocol": {**GOOD["protocol"], "crop": "x"}}, r"found one that .* \(crop is one of none, nyu_eigen, "),
        ({"protocol": {**GOOD["protocol"], "x": 1}}, r"found one that .* unexpected keyword argument 'x'"),
        ({"protocol": {"crop": "none"}}, r"found one that .*'hash'"),
        ({"protocol": 3}, "found one that"),
        ({"metrics": [1]}, "found one that"),
    ],
)
def test_anything_else_is_named(changed, match, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**GOOD, **changed}))
    with pytest.raises(ValueError, match=rf"^{path}: .*{match}.*{AGAIN}"):
        read_metrics(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"\0"])
def test_no_json_is_named(content, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path}: expected "):
        read_metrics(path)
