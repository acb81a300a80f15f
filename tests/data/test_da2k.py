import json

import numpy as np
import pytest
from PIL import Image

from depth_lightning.data.da2k import DA2K, point_pair_loader
from depth_lightning.data.transforms import network_image

PAIR = {"point1": [0, 79], "point2": [41, 3], "closer_point": "point1"}


def _write(root, annotations, size=(42, 80)):
    """A DA-2K folder with a random image of `size` (h, w) for every path."""
    rng = np.random.default_rng(0)
    for path in annotations:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / path)
    (root / "annotations.json").write_text(json.dumps(annotations, ensure_ascii=False), encoding="utf-8")
    return root


def test_points_are_rows_and_columns_with_the_nearer_first(tmp_path):
    other = {"point1": [1, 2], "point2": [3, 4], "closer_point": "point2"}
    name = "images/non_real/日本 café.png"
    _write(tmp_path, {name: [PAIR, other], "images/aerial/a.png": [PAIR]})
    data = DA2K(tmp_path, size=42)
    assert (len(data), data.scenes) == (2, ["aerial", "non_real"])
    sample = data[0]
    assert (sample.id, sample.scene, sample.size) == (name, "non_real", (42, 80))
    assert sample.nearer.tolist() == [[0, 79], [3, 4]]
    assert sample.farther.tolist() == [[41, 3], [1, 2]]


def test_the_image_is_rgb_at_the_networks_size(tmp_path):
    _write(tmp_path, {"images/aerial/a.png": [PAIR]})
    expected = network_image(np.asarray(Image.open(tmp_path / "images/aerial/a.png")), 56)
    image = DA2K(tmp_path, size=56)[0].image
    assert image.shape == (3, 56, 112)
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_a_photograph_is_turned_upright(tmp_path):
    """Stored lying, 42 rows and 80 columns; the points belong to the upright picture of 80 rows."""
    pair = {**PAIR, "point1": [79, 0], "point2": [3, 41]}
    _write(tmp_path, {"images/aerial/a.jpg": [pair]})
    path = tmp_path / "images/aerial/a.jpg"
    image = Image.open(path)
    image.getexif()[0x0112] = 6
    image.save(path, exif=image.getexif())
    assert DA2K(tmp_path)[0].size == (80, 42)


def test_images_without_pairs_are_left_out(tmp_path):
    _write(tmp_path, {"images/aerial/a.png": [], "images/indoor/b.png": [PAIR]})
    data = DA2K(tmp_path)
    assert (data.images, data.scenes) == (["images/indoor/b.png"], ["indoor"])


@pytest.mark.parametrize("workers", [0, 1])
def test_processes_share_the_images_without_padding(tmp_path, workers):
    _write(tmp_path, {f"images/aerial/{i}.png": [PAIR] for i in range(3)})
    data = DA2K(tmp_path, size=42)
    seen = [[sample.id[-5] for sample in point_pair_loader(data, workers, rank, 2)] for rank in range(2)]
    assert seen == [["0", "2"], ["1"]]


@pytest.mark.parametrize(
    "entry, match",
    [
        ({**PAIR, "closer_point": "point3"}, r"a\.png: expected closer_point .* found 'point3'"),
        ({**PAIR, "closer_point": ["point1"]}, "found .'point1'."),
        ({"point1": [0, 1], "point2": [1, 1]}, "expected closer_point .* found None"),
        ({**PAIR, "point1": [0.5, 1]}, "whole pixels, found .*0.5"),
        ({**PAIR, "point2": [1, 2, 3]}, "whole pixels"),
        ({"point1": [0, 1], "closer_point": "point1"}, "expected point1 and point2"),
        ("point1", "expected point1 and point2 .* found 'point1'"),
    ],
)
def test_wrong_pairs_are_named(tmp_path, entry, match):
    _write(tmp_path, {"images/aerial/a.png": [PAIR, entry]})
    with pytest.raises(ValueError, match=match):
        DA2K(tmp_path)


@pytest.mark.parametrize("point", [[42, 0], [0, 80], [-1, 0]])
def test_a_point_outside_of_the_image_is_named(tmp_path, point):
    _write(tmp_path, {"images/aerial/a.png": [PAIR, {**PAIR, "point2": point}]})
    data = DA2K(tmp_path)
    with pytest.raises(ValueError, match=rf"a\.png: the point \[{point[0]}, {point[1]}\] .* 42 rows and 80 columns"):
        data[0]


@pytest.mark.parametrize(
    "content, match",
    [
        ("{", "damaged .*line 1"),
        ("[1]", "expected a JSON object"),
        ('{"a.png": 1}', "expected a JSON object"),
        ("{}", "found none"),
        (b"\xff{}", "in UTF-8, found the byte 0xff in line 1"),
    ],
)
def test_a_wrong_annotation_file_is_named(tmp_path, content, match):
    (tmp_path / "annotations.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"annotations.json: .*{match}"):
        DA2K(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"depth-anything/DA-2K.*set data\.root or DA2K_ROOT"):
        DA2K(tmp_path)
    inner = _write(tmp_path / "DA-2K", {"images/aerial/a.png": [PAIR], "images/aerial/b.png": [PAIR]})
    with pytest.raises(FileNotFoundError, match=f"set data.root={inner}"):
        DA2K(tmp_path)
    (inner / "images/aerial/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images .* such as images/aerial/b\.png"):
        DA2K(inner)


def test_an_image_that_is_none_is_named(tmp_path):
    _write(tmp_path, {"images/aerial/a.png": [PAIR]})
    (tmp_path / "images/aerial/a.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"a\.png: expected an image"):
        DA2K(tmp_path)[0]


def test_there_is_nothing_to_train_on(tmp_path):
    with pytest.raises(ValueError, match="no depth maps"):
        DA2K(_write(tmp_path, {"images/aerial/a.png": [PAIR]}), split="train")
