"""The index of files: what is found, and what it takes."""

import glob
import pickle
from pathlib import Path

import pytest

from depth_lightning.data import DepthPairs
from depth_lightning.data.listing import read_manifest
from depth_lightning.data.pair_table import Pair, PairTable
from depth_lightning.data.texts import Texts
from depth_lightning.data.walk import find


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    for name in (
        *(
            "a/rgb/1.png",
            "a/rgb/2.PNG",
            "a/rgb/.3.png",
            "a/depth/1.png",
            "a/rgb.png",
            "b/x/rgb/10.png",
            "b/.hidden/1.png",
        ),
        *("b/.hidden/1.png", "b/x/y/rgb/1.png", "[c]/rgb/1.png", "d e/rgb/é.png", "1.png", "a/rgb/folder.png/1.png"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    outside = tmp_path / "outside" / "rgb"
    outside.mkdir(parents=True)
    (outside / "7.png").touch()
    (root / "link").symlink_to(outside.parent)
    (root / "a" / "rgb" / "broken.png").symlink_to("nowhere")
    return root


@pytest.mark.parametrize(
    "pattern",
    [
        *("*/rgb/*.png", "**/*.png", "**/rgb/*.png", "a/**/*", "a/rgb/1.png", "a/none.png", "*/x/**/1*", "?/rgb/?.png"),
        *("**/.hidden/*.png", "a/rgb/.*", "a/../b/x/*/*.png", "*", "[c]/rgb/*.png", "a/*/"),
    ],
)
def test_what_glob_finds(pattern, tree):
    escaped = pattern.replace("[", "[[]")
    assert find(tree, pattern) == sorted(glob.glob(escaped, root_dir=tree, recursive=True))  # noqa: PTH207
    assert find(Path("/"), f"{tree}/{pattern}") == sorted(glob.glob(f"{tree}/{escaped}", recursive=True))  # noqa: PTH207


def test_files_that_come_go_and_change_their_name_are_noticed(tmp_path):
    def ids():
        pairs = DepthPairs("val", tmp_path, "rgb/*.png", "depth/*.png", val_share=0.999)
        return [pair.id for pair in pairs.pairs] if len(pairs) else []

    for folder in ("rgb", "depth"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"{number}.png").touch()
    before = ids()
    assert before == [f"rgb/{number}.png" for number in range(3)]
    for folder in ("rgb", "depth"):
        (tmp_path / folder / "1.png").rename(tmp_path / folder / "7.png")
        (tmp_path / folder / "2.png").unlink()
        (tmp_path / folder / "3.png").touch()
    assert ids() == ["rgb/0.png", "rgb/3.png", "rgb/7.png"]


def test_texts_are_a_list_of_str():
    texts = ["", "a/ü.png", "a/b\udcff.png", "a/b.png"]  # the third is of a name that is no UTF-8
    for listed in (texts, texts[1:], texts[:1], [], ["same", "same"]):
        packed = Texts(listed)
        assert list(packed) == list(pickle.loads(pickle.dumps(packed))) == listed
        assert packed[1:] == listed[1:]
        assert packed[::-1] == listed[::-1]
        assert len(packed) == len(listed)
        with pytest.raises(IndexError):
            packed[len(listed)]
    assert Texts(texts)[-1] == texts[-1]


def test_a_table_of_pairs_is_small_and_keeps_them():
    root = "/a/long/path/to/where/the/data/are"
    pairs = [
        Pair(name := f"scene_{n // 100}/{n}.png", f"{root}/{name}", f"{root}/{name[:-4]}.exr:Z", "", "s", "val")
        for n in range(5000)
    ]
    table = PairTable(pairs)
    assert list(table) == pairs
    assert table.nbytes / len(table) < 120
    with_numbers = [pairs[0], pairs[1]._replace(numbers={"depth_scale": 5.0, "focal_px": 720.5})]
    assert list(PairTable(with_numbers)) == with_numbers


def test_paths_of_a_manifest_are_joined_as_path_does(tmp_path):
    for name in ("a.png", "b/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "m.csv").write_text(f"image,depth\n./a.png,b//c.png\n{tmp_path}/b/./c.png,{tmp_path}/a.png\n")
    first, second = read_manifest(tmp_path / "m.csv")
    assert (first.id, first.image, first.depth) == ("a.png", f"{tmp_path}/a.png", f"{tmp_path}/b/c.png")
    assert (second.id, second.image, second.depth) == ("b/c.png", f"{tmp_path}/b/c.png", f"{tmp_path}/a.png")
