import re
from dataclasses import replace

import pytest

from depth_lightning.reporting.model_card import ModelCard

NUMBERS = {
    "metrics": {"abs_rel": 0.07312, "delta1": 0.96, "silog": None},
    "images": 654,
    "data": "NYUDepthV2 nyu",
    "protocol": {"min_depth": 0.001, "crop": "nyu_eigen", "hash": "0a1b2c3d"},
}


def front_matter(card):
    block = str(card).split("---\n")[1]
    return dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)


def test_numbers_stand_with_their_protocol_and_nothing_else_is_a_number():
    text = str(ModelCard("vits", "metric", 10.0, 518, "", numbers=NUMBERS))
    assert "| abs_rel ↓ | 0.0731 |" in text and "| delta1 ↑ | 0.9600 |" in text and "silog" not in text
    assert "654 images of NYUDepthV2 nyu. Protocol 0a1b2c3d: min_depth 0.001, crop nyu_eigen" in text
    other = str(ModelCard("vits", "metric", 10.0, 518, "", numbers={**NUMBERS, "split": "all"}))
    assert "654 images of NYUDepthV2 nyu, split all. Protocol" in other
    without = str(ModelCard("vits", "metric", 10.0, 518, ""))
    assert "Not evaluated" in without and "abs_rel" not in without


def test_metres_are_rounded_to_centimetres():
    text = str(ModelCard("vits", "metric", 5.21227, 518, ""))
    assert "from one image, up to 5.21 m." in text and "No depth exceeds 5.21 m; anything" in text
    assert "up to 1000 m." in str(ModelCard("vits", "metric", 1000.0, 518, ""))


def test_numbers_of_a_metric_of_ones_own_point_the_way_it_states():
    numbers = {**NUMBERS, "metrics": {"mine": 0.5}}
    assert "| mine ↓ | 0.5000 |" in str(ModelCard("vits", "metric", 10.0, 518, "official", numbers=numbers))
    numbers["higher_is_better"] = {"mine": True}
    assert "| mine ↑ | 0.5000 |" in str(ModelCard("vits", "metric", 10.0, 518, "official", numbers=numbers))


@pytest.mark.parametrize(
    "start, licence, known, sentence",
    [
        ("depth-anything/Depth-Anything-V2-Small", "Apache-2.0", "apache-2.0", "licensed under Apache-2.0."),
        ("depth-anything/Depth-Anything-V2-Base", "CC-BY-NC-4.0", "cc-by-nc-4.0", "No commercial use."),
        ("mine.pth", None, "unknown", "whose licence is unknown"),
        (None, None, "unknown", "random weights"),
    ],
)
def test_the_licence_of_the_starting_weights_is_passed_on(start, licence, known, sentence):
    card = ModelCard("vits", "relative", None, 518, "", "transformers", starting_weights=start, licence=licence)
    fields = front_matter(card)
    assert fields["license"] == known and sentence in str(card)
    assert fields["pipeline_tag"] == "depth-estimation" and fields["library_name"] == "transformers"
    assert fields.get("base_model") == (start if start and "/" in start else None)
    assert ("No commercial use" in str(card)) == (known == "cc-by-nc-4.0")


def test_the_usage_and_the_tags_are_those_of_the_export():
    text = str(ModelCard("tiny", "relative", None, 84, "\nload()\n", tags=["onnx"]))
    assert "## Use\n\n```python\nload()\n```\n" in text
    assert "- relative-depth\n- onnx\n---\n" in text


def test_what_a_relative_network_gives_is_not_called_metres():
    text = str(ModelCard("vits", "relative", None, 518, "", limits=["A limit."]))
    assert "neither unit nor zero" in text and " m;" not in text and "- A limit." in text


HOSTILE = "x](javascript:alert(1)) <script>|\n---\n# `no`"


def test_what_is_quoted_is_text():
    numbers = {**NUMBERS, "data": HOSTILE, "protocol": {"crop": HOSTILE, "hash": HOSTILE}, "metrics": {HOSTILE: 0.5}}
    card = ModelCard("vits", "metric", 10.0, 518, "", recipe={HOSTILE: HOSTILE}, numbers=numbers)
    for origin in (HOSTILE, f"a/{HOSTILE}"):
        text = str(replace(card, starting_weights=origin, licence=HOSTILE))
        assert "base_model" not in text and text.count("\n---\n") == 1
        for forbidden in (r"(?<!\\)<", r"(?<!\\)\]\(", "\n# `"):
            assert not re.search(forbidden, text), forbidden
        assert all(line.count(" | ") == 1 for line in text.splitlines() if line.startswith("| "))
