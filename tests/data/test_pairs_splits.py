import re

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
    assert caplog.text.count("No scenes are known") == 1  # of both splits
    assert "one validation image" not in caplog.text


def test_a_single_validation_image_is_a_warning(chosen, caplog):
    assert len(chosen([Pair(f"{number}.png", "", "") for number in range(12)])["val"]) == 1
    message = (
        "data.val_share=0.1 of 12 images is one validation image, too few to choose the best checkpoint by. Raise "
        "data.val_share, or name the validation images with data.split_list."
    )
    assert caplog.text.count(message) == 1


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


def kitti(drives=2, frames=3):
    """Two cameras, as in KITTI's raw data."""
    return [
        Pair(
            f"2011_09_26/drive_{drive}_sync/image_0{camera}/data/{frame:010d}.png", "", "", scene=f"drive_{drive}_sync"
        )
        for drive in range(drives)
        for camera in (2, 3)
        for frame in range(frames)
    ]


MONODEPTH2 = "2011_09_26/drive_0_sync 1 l\n2011_09_26/drive_1_sync 0000000002 r\n2011_09_26/drive_1_sync 99 l\n"
"""As in splits/eigen_zhou and splits/eigen; the last frame is not there."""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_monodepth2_names_single_frames(end, chosen, tmp_path, caplog):
    (tmp_path / "val_files.txt").write_bytes(MONODEPTH2.replace("\n", end).encode())
    splits = chosen(kitti(), "val_files.txt")
    expected = {
        "2011_09_26/drive_0_sync/image_02/data/0000000001.png",
        "2011_09_26/drive_1_sync/image_03/data/0000000002.png",
    }
    assert splits["val"] == expected and len(splits["train"]) == 10
    assert "names 3, and 1 of them are not among the pairs: 2011_09_26/drive_1_sync 99 l" in caplog.text


def test_frames_where_no_folder_names_a_camera(chosen, tmp_path):
    pairs = [Pair(f"{scene}/rgb_{frame:05d}.jpg", "", "") for scene in "ab" for frame in range(3)]
    (tmp_path / "val.txt").write_text("a 1 l\nb 2\n")
    assert chosen(pairs, "val.txt")["val"] == {"a/rgb_00001.jpg", "b/rgb_00002.jpg"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bts.txt", "a b/1 (2).png a b/d, 1.png 518.8579\n/c/x.jpg /c/sync_x.png 518\nc/y.jpg None 518\n"),
        ("tabs.txt", "a b/1 (2).png\ta b/d, 1.png\nc/x.jpg\tc/sync_x.png\n"),
        ("names.txt", "# the validation\n./a b/1 (2)\nc\\x.jpg\n"),
        ("absolute.txt", "{root}/a b/1 (2).png\n{root}/c/x.jpg {root}/c/sync_x.png\n"),
        ("quoted.csv", 'depth,image\nsync_x.png,c/x.jpg\n"a b/d, 1.png","a b/1 (2).png"\nNone,c/y.jpg\n'),
        ("no_header.csv", "a b/1 (2).png,a b/d.png\nc/x.jpg,c/sync_x.png\n"),
        ("semicolons.csv", "Image ; Split\na b/1 (2).png ; val\nc/x.jpg ; val\nc/y.jpg ; Train\nc/z.jpg;train\n"),
        ("lines.jsonl", '{"image": "a b/1 (2).png"}\n{"image": "c/x.jpg"}\n'),
    ],
)
def test_the_forms_of_a_list(name, text, chosen, tmp_path):
    ids = ["a b/1 (2).png", "c/x.jpg", "c/y.jpg", "c/z.jpg"]
    (tmp_path / name).write_text(text.replace("{root}", str(tmp_path)))
    splits = chosen([Pair(id, f"{tmp_path}/{id}", "") for id in ids], name)
    assert splits == {"val": {*ids[:2]}, "train": {*ids[2:]}}


def test_a_list_of_scenes(chosen, tmp_path):
    (tmp_path / "val.txt").write_text("b\nc\n")
    assert {id[0] for id in chosen(pairs_of(*"abcd"), "val.txt")["val"]} == {*"bc"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("drive_0_sync", "6 (2011_09_26/drive_0_sync/image_02/data/0000000000.png, .*1.png, .*2.png, …)"),
        ("2011_09_26/drive_0_sync left", "6 ("),
        ("drive_0_sync 1", "2 (2011_09_26/drive_0_sync/image_02/data/0000000001.png, .*image_03/data/0000000001.png)"),
        ("0000000001.png", "4 ("),
        ("drive_0_sync/image_02/data/0000000000.png drive_0_sync/image_02/data/0000000001.png", "2 ("),
    ],
)
def test_a_line_that_names_several_images(line, found, chosen, tmp_path):
    path = tmp_path / "val.txt"
    path.write_text(f"2011_09_26/drive_1_sync/image_02/data/0000000000.png\n{line}\n")
    message = f"{path}, line 2: expected the name of one image, found '{line}', which names {found}"
    with pytest.raises(ValueError, match=f"^{re.escape(message).replace(re.escape('.*'), '.*')}"):
        chosen(kitti(), "val.txt")


@pytest.mark.parametrize(
    ("files", "split_list"),
    [
        ({"train.txt": "a/0.png\nb/0.png\n", "val.txt": "b/0\nb/1.png\n"}, "{split}.txt"),
        ({"train.txt": "a\nb\n", "val.txt": "b\n"}, "{split}.txt"),
        ({"all.csv": "image,split\na/0.png,train\nb/0.png,train\nb/0.png,val\n"}, "all.csv"),
        ({"train.txt": "a/0.png\nb/0.png\n", "val.txt": "a/1.png\n", "test.txt": "b/0.png c\n"}, "{split}.txt"),
    ],
)
def test_an_image_of_two_splits(files, split_list, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    other = "test" if "test.txt" in files else "val"
    with pytest.raises(
        ValueError, match=rf"expected train and {other} to have no image in common, found \d \(b/0\.png"
    ):
        select(pairs_of("a", "b"), "train", split_list, 0.1, tmp_path)
    with pytest.raises(
        ValueError, match=rf"expected {other} and train to have no image in common, found \d \(b/0\.png"
    ):
        select(pairs_of("a", "b"), other, split_list, 0.1, tmp_path)


def test_test_and_all(tmp_path):
    def ids(pairs, split, split_list=None):
        return [pair.id for pair in select(pairs, split, split_list, 0.1, tmp_path)]

    own = [Pair(f"{split}/0.png", "", "", split=split) for split in ("train", "val", "test", "held out")]
    assert ids(own, "test") == ["test/0.png"] and len(ids(own, "all")) == 4
    assert ids([Pair("a.png", "", "")], "all") == ["a.png"]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text(f"{split}/0.png\n")
    assert ids(own, "test", "{split}.txt") == ["test/0.png"] and len(ids(own, "all", "{split}.txt")) == 4
    for pairs, split_list, how in ((pairs_of(*"abc"), None, r"data\.val_share"), (own, ["val"], r"\['val'\]")):
        with pytest.raises(ValueError, match=f"The test split is empty: .*{how}.*Name the splits"):
            ids(pairs, "test", split_list)
