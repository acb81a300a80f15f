import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from depth_lightning.commands.evaluate import evaluate_point_pairs
from depth_lightning.models import DepthAnythingV2
from depth_lightning.runs import objects

SIZES = {"indoor": (60, 90), "transparent_reflective": (133, 71), "aerial": (42, 42)}


class Fixed(torch.nn.Module):
    """Predicts the same map whatever the image: `rows` grows downwards, `noise` is random."""

    def __init__(self, output, rows=True):
        super().__init__()
        self.output, self.rows = output, rows

    def forward(self, image):
        batch, _, height, width = image.shape
        if self.rows:
            return torch.linspace(1, 2, height)[:, None].expand(batch, height, width)
        return torch.rand(batch, height, width, generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of each of three scene types, with 1 to 6 random pairs."""
    root, rng, annotations = tmp_path_factory.mktemp("DA-2K"), np.random.default_rng(0), {}
    for scene, size in SIZES.items():
        (root / "images" / scene).mkdir(parents=True)
        for stem in ("a", "日本 é"):
            name = f"images/{scene}/{stem}.png"
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
            points = rng.integers(0, size, (rng.integers(1, 7), 2, 2)).tolist()
            annotations[name] = [{"point1": a, "point2": b, "closer_point": "point1"} for a, b in points]
    (root / "annotations.json").write_text(json.dumps(annotations), encoding="utf-8")
    return root


@pytest.fixture
def config(compose_config, folder, tmp_path):
    typed = ["data=da2k", f"data.root={folder}", "data.size=42", "data.num_workers=0", "trainer=cpu", "model=tiny"]
    return compose_config("evaluate", typed, tmp_path)


def _expected(folder, right):
    """Scene type → share of pairs for which right(size, nearer point, farther point)."""
    answers = {}
    for name, pairs in json.loads((folder / "annotations.json").read_text(encoding="utf-8")).items():
        scene = name.split("/")[1]
        size = SIZES[scene]
        answers.setdefault(scene, []).extend(right(size, pair["point1"], pair["point2"]) for pair in pairs)
    shares = {f"accuracy_{scene}": sum(each) / len(each) for scene, each in answers.items()}
    everything = [answer for each in answers.values() for answer in each]
    return {"accuracy": sum(everything) / len(everything), **shares}, len(everything)


@pytest.mark.parametrize("output, lower_is_nearer", [("relative", True), ("metric", False)])
def test_a_row_gradient_gives_the_known_accuracy(config, folder, tmp_path, output, lower_is_nearer):
    """As disparity it says that the lower point is nearer, as depth that the upper one is."""

    def right(size, nearer, farther):
        return nearer[0] > farther[0] if lower_is_nearer else nearer[0] < farther[0]

    expected, pairs = _expected(folder, right)
    assert 0 < expected["accuracy"] < 1
    score = evaluate_point_pairs(config, Fixed(output), objects.dataset_of(config.data)(), "rows")
    assert {**score.metrics, **expected} == score.metrics
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["metrics"] == score.metrics
    assert content["higher_is_better"] == dict.fromkeys(score.metrics, True)
    assert (content["images"], content["pairs"]) == (6, pairs) == (6, sum(content["pairs_by_scene"].values()))
    with (tmp_path / "table.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["accuracy_transparent_reflective"]) == expected["accuracy_transparent_reflective"]


def test_predictions_are_read_at_the_images_own_size(config, folder):
    """Against bilinear interpolation at the points, corners aligned, written out in NumPy."""

    def read(size, point):
        h, w = size
        scale = 42 / min(h, w)
        height, width = (max(42, 14 * round(scale * side / 14)) for side in size)
        map_ = Fixed("relative", rows=False)(torch.empty(1, 3, height, width))[0].double().numpy()
        y, x = point[0] * (height - 1) / (h - 1), point[1] * (width - 1) / (w - 1)
        top, left = min(int(y), height - 2), min(int(x), width - 2)
        corners = map_[top : top + 2, left : left + 2]
        return np.array([1 - y + top, y - top]) @ corners @ np.array([1 - x + left, x - left])

    expected, _ = _expected(folder, lambda size, nearer, farther: read(size, nearer) > read(size, farther))
    score = evaluate_point_pairs(config, Fixed("relative", rows=False), objects.dataset_of(config.data)(), "noise")
    assert {**score.metrics, **expected} == score.metrics


def test_a_network_is_scored_and_the_table_names_scenes_and_pairs(config, folder, tmp_path, capsys):
    torch.manual_seed(0)
    score = evaluate_point_pairs(
        config, DepthAnythingV2("tiny"), objects.dataset_of(config.data)(), "tiny of random weights"
    )
    assert score.metrics["accuracy"] > 0 and score.counts.ties == 0
    printed = capsys.readouterr().out
    for text in ("tiny of random weights", *SIZES, "all pairs", "6 images", str(tmp_path)):
        assert text in printed


def test_a_constant_prediction_is_all_ties_and_all_wrong(config, capsys):
    class Constant(Fixed):
        def forward(self, image):
            return torch.zeros_like(image[:, 0])

    score = evaluate_point_pairs(config, Constant("relative"), objects.dataset_of(config.data)(), "constant")
    assert score.metrics["accuracy"] == 0
    assert score.counts.ties == sum(score.counts.pairs.values())
    assert f"{score.counts.ties} pairs with the same prediction" in capsys.readouterr().out


def test_only_da2k_is_da2k(config, compose_config):
    assert objects.is_point_pairs(config.data)
    for other in ("rooms", "mixture"):
        assert not objects.is_point_pairs(compose_config("evaluate", [f"data={other}"]).data), other


def test_training_on_it_is_refused(compose_config, folder, tmp_path):
    from depth_lightning.commands.train import train

    with pytest.raises(ValueError, match="no depth maps"):
        train(compose_config("train", ["model=tiny", "data=da2k", f"data.root={folder}", "trainer=cpu"], tmp_path))
