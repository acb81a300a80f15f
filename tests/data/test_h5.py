"""Values that an HDF5 file has in other files: read below the data's folder, and from nowhere else."""

import os
from collections.abc import Callable

import cv2
import h5py
import numpy as np
import pytest

from depth_lightning.data import DepthPairs, NYUDepthV2
from depth_lightning.data.files import read_map
from depth_lightning.data.nyu import read_h5

H, W = 28, 42
Reader = Callable[..., np.ndarray]


@pytest.fixture
def root(tmp_path):
    """The data's folder; outside of it lie values that are not for it."""
    (tmp_path / "data/train/s").mkdir(parents=True)
    for folder, metres in (("data/train/s", 2), ("outside", 7)):
        (tmp_path / folder).mkdir(exist_ok=True)
        np.full((H, W), metres, np.float32).tofile(tmp_path / folder / "values.bin")
        with h5py.File(tmp_path / folder / "values.h5", "w") as file:
            file["depth"] = np.full((H, W), metres, np.float32)
    return tmp_path / "data"


def frame(path, depth):
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, H, W), np.uint8)
        depth(file)
    return path


def link(target, name="/depth"):
    return lambda file: file.__setitem__("depth", h5py.ExternalLink(str(target), name))


def raw(target):
    return lambda file: file.create_dataset("depth", (H, W), "f4", external=[(str(target), 0, 4 * H * W)])


def virtual(*targets, name="depth"):
    def write(file):
        layout = h5py.VirtualLayout((H, W), "f4")
        for number, target in enumerate(targets):
            rows = np.s_[number * H // len(targets) : (number + 1) * H // len(targets)]
            layout[rows] = h5py.VirtualSource(str(target), name, (H, W))[rows]
        file.create_virtual_dataset("depth", layout)

    return write


def read_nyu(path, root=None):
    return read_h5(path, root)[1]


def read_key(path, root=None):
    return read_map(path, "depth", root)


@pytest.mark.parametrize("kind", ["link", "raw", "virtual", "virtual of itself", "soft link"])
def test_below_the_folder_they_are_read(kind, root):
    folder = root / "train/s"
    makes = {
        "link": link("values.h5"),
        "raw": raw(folder / "values.bin"),
        "virtual": virtual("values.h5", folder / "values.h5"),
        "virtual of itself": lambda file: (
            file.__setitem__("real", np.full((H, W), 2, np.float32)),
            virtual(".", name="real")(file),
        ),
        "soft link": lambda file: (
            file.__setitem__("real", np.full((H, W), 2, np.float32)),
            file.__setitem__("depth", h5py.SoftLink("/real")),
        ),
    }
    path = frame(folder / "a.h5", makes[kind])
    assert (read_nyu(path, root) == 2).all() and (read_nyu(path) == 2).all()
    assert (NYUDepthV2(root, "train", "h5")[0].target == 2).all()
    if "link" not in kind:  # `read_map` finds what is in the file itself
        assert (read_key(path, root) == 2).all()


OUTSIDE = (
    r"expected .* to lie in this file, or in another one below \S*, found a reference to \S*. Copy the values into"
)


@pytest.mark.parametrize("way", ["absolute", "upwards", "through a link"])
@pytest.mark.parametrize("kind", ["link", "raw", "virtual", "virtual in part"])
def test_from_elsewhere_they_are_refused(kind, way, root):
    folder, end = root / "train/s", "bin" if kind == "raw" else "h5"
    outside = root.parent / f"outside/values.{end}"
    target = outside
    if way == "upwards":
        target = folder / f"../../../outside/values.{end}" if kind == "raw" else f"../../../outside/values.{end}"
    if way == "through a link":
        target = folder / f"link.{end}"
        target.symlink_to(outside)
    make = {"link": link, "raw": raw, "virtual": virtual}.get(kind, lambda path: virtual("values.h5", path))
    path = frame(folder / "a.h5", make(target))
    for read in (read_nyu, *([read_key] if kind != "link" else [])):
        with pytest.raises(ValueError, match=rf"^\S*a\.h5: {OUTSIDE}"):
            read(path, root)
    # A folder further up is the user's to name.
    assert (read_nyu(path, root.parent) == 7).any()


def test_from_elsewhere_at_second_hand(root):
    folder = root / "train/s"
    frame(folder / "first.h5", raw(root.parent / "outside/values.bin"))
    frame(folder / "second.h5", virtual(root.parent / "outside/values.h5"))
    frame(folder / "third.h5", link(root.parent / "outside/values.h5"))
    for number, make in enumerate((virtual("first.h5"), link("first.h5"), link("second.h5"), link("third.h5"))):
        with pytest.raises(ValueError, match=rf"\S*{number}\.h5: {OUTSIDE}"):
            read_nyu(frame(folder / f"{number}.h5", make), root)

    def soft(file):
        file["group"] = h5py.ExternalLink(str(root.parent / "outside/values.h5"), "/")
        file["depth"] = h5py.SoftLink("/group/depth")

    with pytest.raises(ValueError, match=rf"soft\.h5: {OUTSIDE}"):
        read_nyu(frame(folder / "soft.h5", soft), root)
    # The data set that a virtual one is made of lies elsewhere, by a link of its own or of its group.
    for name in ("depth", "group/depth"):
        frame(folder / "source.h5", soft)
        with pytest.raises(ValueError, match=rf"virtual\.h5: {OUTSIDE}"):
            read_nyu(frame(folder / "virtual.h5", virtual("source.h5", name=name)), root)


@pytest.mark.parametrize("make", [link, raw, virtual])
def test_what_is_no_file_is_not_waited_for(make, root):
    folder = root / "train/s"
    os.mkfifo(folder / "fifo")
    path = frame(folder / "a.h5", make(folder / "fifo"))
    with pytest.raises(
        ValueError, match=r"^\S*a\.h5: expected .* in \S*fifo, to which this file refers, found no file"
    ):
        read_nyu(path, root)
    path = frame(folder / "b.h5", make(folder / "gone"))
    with pytest.raises(
        ValueError, match=r"^\S*b\.h5: expected .* in \S*gone, to which this file refers, found no file"
    ):
        read_nyu(path, root)


def test_links_that_end_nowhere(root):
    folder = root / "train/s"

    def mutual(file):
        file["depth"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("depth")

    for make, message in (
        (mutual, "expected .* to be a data set, found link after link"),
        (link("a.h5"), "expected .* to be a data set, found link after link"),
        (lambda file: file.create_group("depth"), "expected 'depth' to be a data set, found something else"),
        (
            lambda file: file.__setitem__("depth", h5py.SoftLink("/gone")),
            "expected an HDF5 file, found one that is cut",
        ),
    ):
        with pytest.raises(ValueError, match=rf"^\S*a\.h5: {message}"):
            read_nyu(frame(folder / "a.h5", make), root)

    def to_a_fifo(file):
        file["group"], file["depth"] = h5py.ExternalLink("fifo", "/"), h5py.SoftLink("group/depth")

    os.mkfifo(folder / "fifo")
    with pytest.raises(ValueError, match=r"^\S*b\.h5: .* to which this file refers, found no file there"):
        read_nyu(frame(folder / "b.h5", to_a_fifo), root)


def test_a_data_set_that_is_made_of_itself_ends(root):
    path = frame(root / "train/s/a.h5", virtual("a.h5"))
    with pytest.raises(ValueError, match=r"^\S*a\.h5: expected a data set made of others, found virtual data sets"):
        read_nyu(path, root)


def test_a_manifest_reads_below_its_root(root):
    folder = root / "train/s"
    for name, values in (("a", "data/train/s/values.bin"), ("b", "outside/values.bin")):
        path = frame(folder / f"{name}.h5", raw(root.parent / values))
        image = np.zeros((H, W, 3), np.uint8)
        cv2.imwrite(str(path.with_suffix(".png")), image)
    (root / "m.csv").write_text(
        "image,depth,split\ntrain/s/a.png,train/s/a.h5:depth,train\ntrain/s/b.png,train/s/b.h5:depth,val\n"
    )
    assert (DepthPairs("train", manifest=root / "m.csv")[0].target == 2).all()
    with pytest.raises(ValueError, match=rf"^\S*b\.h5: {OUTSIDE}"):
        DepthPairs("val", manifest=root / "m.csv")[0]
    assert (DepthPairs("val", root.parent, manifest=_below(root))[0].target == 7).all()


def _below(root):
    """The same manifest as seen from the folder above."""
    text = (root / "m.csv").read_text().replace("train/s/", "data/train/s/")
    (root.parent / "m.csv").write_text(text)
    return root.parent / "m.csv"
