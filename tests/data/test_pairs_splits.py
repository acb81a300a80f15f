import pytest

from depth_lightning.data.pair_table import Pair
from depth_lightning.data.splits import select


def pairs_of(*scenes):
    return [Pair(f"{scene}/{frame}.png", "", "", scene=scene) for scene in scenes for frame in range(3)]


@pytest.fixture
def chosen(tmp_path):
    def ids(pairs, split_list=None, val_share=0.1):
        splits = {s: {p.id for p in select(pairs, s, split_list, val_share, tmp_path)} for s in ("train", "val")}
        assert not splits["train"] & splits["val"]
        return splits

    return ids


def test_a_share_of_the_scenes_is_for_validation(chosen):
    names = [f"scene{number}" for number in range(40)]
    splits = chosen(pairs_of(*names), val_share=0.25)
    val = {id.split("/")[0] for id in splits["val"]}
    assert len(val) == 10
    assert not val & {id.split("/")[0] for id in splits["train"]}
    assert chosen(pairs_of(*names[::-1]), val_share=0.25) == splits
    assert len(chosen(pairs_of("a", "b"), val_share=0.01)["val"]) == 3


def test_a_share_of_the_images_where_no_scene_is_known(chosen, caplog):
    pairs = [Pair(f"{number}.png", "", "") for number in range(100)]
    assert len(chosen(pairs)["val"]) == 10
    assert "No scenes are known" in caplog.text


def test_lists_name_scenes_folders_or_images(chosen, tmp_path, caplog):
    pairs = [Pair(f"raw/{scene}/cam_{camera}/0.png", "", "", scene=scene) for scene in "abc" for camera in "12"]
    everything = {pair.id for pair in pairs}
    for names in (["b"], ["raw/b/cam_1/0.png", "b/cam_2/0"], ["raw/b"], ["/b/"]):
        splits = chosen(pairs, names)
        assert splits["val"] == {"raw/b/cam_1/0.png", "raw/b/cam_2/0.png"}
        assert splits["train"] == everything - splits["val"]
    assert chosen(pairs, ["cam_2"])["val"] == {pair.id for pair in pairs if "cam_2" in pair.id}
    # As in the lists of KITTI's Eigen split; one of its images has no depth.
    (tmp_path / "train.txt").write_text("a/cam_1/0.png a/gt/0.png 721.5\nc/cam_1/0.png None 721.5\n")
    (tmp_path / "val.txt").write_text("b/cam_1/0.png b/gt/0.png 721.5\n\nz/cam_1/0.png z/gt/0.png 721.5\n")
    assert chosen(pairs, "{split}.txt") == {"train": {"raw/a/cam_1/0.png"}, "val": {"raw/b/cam_1/0.png"}}
    assert "1 of them are not among the pairs: z/cam_1/0.png" in caplog.text
    assert chosen(pairs, "val.txt")["train"] == everything - {"raw/b/cam_1/0.png"}


@pytest.mark.parametrize(
    ("pairs", "arguments", "message"),
    [
        (pairs_of("a"), {}, "at least two scenes, found 1"),
        (pairs_of("a", "b"), {"split_list": ["c"]}, r"names \['c'\], and none of them is .* such as a/0\.png"),
        (pairs_of("a", "b"), {"split_list": ["a", "b"]}, "The train split is empty"),
        (pairs_of("a", "b"), {"split_list": "no.txt"}, r"No list file at data\.split_list=.*no\.txt"),
        ([Pair("a", "", "", split="validation")], {}, r"train split is empty: the splits are \{'validation': 1\}"),
    ],
)
def test_splits_that_cannot_be(pairs, arguments, message, chosen):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        chosen(pairs, **arguments)
