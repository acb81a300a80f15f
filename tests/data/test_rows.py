"""Manifests as people write them: read rightly, or refused with the file, the row and what to do."""

import json
import logging

import cv2
import numpy as np
import pytest

from depth_lightning.data import DepthEncoding, DepthPairs
from depth_lightning.data.listing import read_manifest

PAIRS = [(f"i{number}.png", f"d{number}.png") for number in range(4)]


@pytest.fixture
def folder(tmp_path):
    for number, (image, depth) in enumerate(PAIRS):
        cv2.imwrite(str(tmp_path / image), np.full((28, 42, 3), 50, np.uint8))
        cv2.imwrite(str(tmp_path / depth), np.full((28, 42), 1000 * (number + 1), np.uint16))
    return tmp_path


def table(separator=",", header="image{}depth", end="\n", edge=""):
    lines = [header.format(separator), *(f"{image}{edge}{separator}{edge}{depth}" for image, depth in PAIRS)]
    return end.join(lines) + end


READ = {
    "comma.csv": table(),
    "semicolon.csv": table(";"),
    "tab.csv": table("\t"),
    "tab.tsv": table("\t"),
    "spaces.csv": table(header="image {} depth", edge=" "),
    "spaces around semicolons.csv": table(";", header=" image {} depth ", edge="  "),
    "upper.csv": table(header="IMAGE{}Depth"),
    "quoted.csv": table(";", header='"image"{}"depth"'),
    "crlf.csv": table(end="\r\n"),
    "cr.csv": table(end="\r"),
    "no newline.csv": table().rstrip(),
    "blank lines.csv": "\n\n" + table(end="\n\n") + ",\n , \n",
    "index.csv": "," + table(",").replace("\n", "\n0,").removesuffix("0,"),
    "array.json": json.dumps([dict(zip(("image", "depth"), pair, strict=True)) for pair in PAIRS]),
    "indented.json": json.dumps([dict(zip(("Image", "depth "), pair, strict=True)) for pair in PAIRS], indent=2),
    "lines.json": "\n".join(json.dumps({"image": image, "depth": depth, "more": [1]}) for image, depth in PAIRS),
    "lines.jsonl": "\r\n".join(json.dumps({"IMAGE": image, "depth": depth, "mask": None}) for image, depth in PAIRS),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", READ)
def test_read_rightly(name, encoding, folder):
    (folder / name).write_bytes(READ[name].encode(encoding))
    pairs = read_manifest(folder / name)
    assert [(pair.id, pair.depth) for pair in pairs] == [(image, f"{folder}/{depth}") for image, depth in PAIRS]


def row(**fields):
    return json.dumps({"image": "i0.png", "depth": "d0.png", **fields})


REFUSED = [
    ("a.csv", b"image,depth,note\ni0.png,d0.png,caf\xe9\n", "expected text in UTF-8, found the byte 0xe9 in line 2"),
    ("a.csv", table().encode("utf-16-le"), "expected text in UTF-8, found a NUL character in line 1: UTF-16 without"),
    ("a.csv", b"image,depth\ni0.png,d0\0.png\n", "expected text in UTF-8, found a NUL character in line 2"),
    ("a.csv", "image,depth,depth\ni0.png,d0.png,d1.png\n", "line 1: expected each column once, found depth several"),
    ("a.csv", "image,depth,DEPTH \ni0.png,d0.png,d1.png\n", "line 1: expected each column once, found depth several"),
    ("a.csv", "image,depth\ni0.png," + "d" * 200_000, "line 2: expected a table, found none (field larger than field"),
    ("a.csv", 'image,depth\n"i0.png,d0.png\n', "line 2: expected 2 cells as in the header ['image', 'depth'], found 1"),
    (
        "a.csv",
        "image,depth\ni0.png,d0.png,1\n",
        "line 2: expected 2 cells as in the header ['image', 'depth'], found 3",
    ),
    (
        "a.csv",
        "i0.png,d0.png\ni1.png,d1.png\n",
        "found nothing for image and depth among ['i0.png', 'd0.png']. Write i",
    ),
    ("a.csv", "# mine\nimage,depth\ni0.png,d0.png\n", "line 2: expected 1 cells as in the header ['# mine'], found 2"),
    ("a.csv", "", "expected a header and rows of images and depths, found no row."),
    ("a.csv", "image,depth,depth_scale\ni0.png,d0.png,nan\n", "line 2: expected a number, found depth_scale 'nan'."),
    (
        "a.csv",
        "image,depth,depth_offset\ni0.png,d0.png,-inf\n",
        "line 2: expected a number, found depth_offset '-inf'.",
    ),
    ("a.csv", "image;depth;focal_px\ni0.png;d0.png;0,5\n", "line 2: expected a number, found focal_px '0,5'."),
    ("a.jsonl", row(depth_scale=True), "line 1: expected text or a number for depth_scale, found true."),
    ("a.jsonl", row(depth_scale=float("nan")), "line 1: expected a number, found depth_scale 'nan'."),
    ("a.jsonl", row(depth=["d0.png"]), 'line 1: expected text or a number for depth, found ["d0.png"].'),
    ("a.jsonl", row(image={"path": "i0.png"}), "line 1: expected text or a number for image, found"),
    (
        "a.jsonl",
        '{"image":"i0.png","depth":"d0.png","depth":"d1.png"}',
        "line 1: expected each column once, found depth",
    ),
    ("a.jsonl", "\n" + row() + "\n[1]", "line 3: expected a JSON object, found '[1]'"),
    ("a.jsonl", "[" * 100_000, "line 1: expected one JSON object per line, maximum recursion depth exceeded"),
    ("a.json", "[" * 100_000, "expected one JSON object per line, or an array of them, maximum recursion depth"),
    ("a.json", f"[{row()}, 5]", "entry 2: expected a JSON object, found '5'"),
    (
        "a.jsonl",
        row(depth_scale=1).replace("1}", "9" * 5000 + "}"),
        "line 1: expected one JSON object per line, Exceeds",
    ),
    ("a.jsonl", row(image="\ud800.png"), r"names 1 missing file: line 1: '"),
    ("a.jsonl", row(image="\0.png"), r"names 1 missing file: line 1: '"),
    ("a.csv", "image,depth\ni0.png," + "d" * 5000 + "\n", "names 1 missing file: line 2: "),
    (
        "a.csv",
        "image,depth\ni0.png,d0.png\ni1.png,d1.png\ni0.png,d0.png\n",
        "found 1 again: line 4 that of line 2, i0.png",
    ),
    (
        "a.csv",
        "image,depth\n" + "i0.png,d0.png\n" * 6,
        "expected each pair once, found 5 again: line 3 that of line 2, i0",
    ),
    (
        "a.csv",
        "image,depth,split\ni0.png,d0.png,train\ni1.png,d1.png,train\n./i0.png,d0.png,val\nx/../i1.png,d1.png,Test\n",
        "expected train and val to have no image in common, found 2 (i0.png, x/../i1.png). Take them out",
    ),
    ("a.xlsx", b"PK\3\4", "expected a manifest as .csv or .jsonl, found '.xlsx'."),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_refused_by_name(name, content, message, folder):
    (folder / "x").mkdir()
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with pytest.raises((ValueError, OSError)) as caught:
        read_manifest(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and message in text
    assert text.isprintable() and len(text) < 900


def test_what_is_no_file(folder):
    (folder / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.csv: expected a file, found a folder"):
        read_manifest(folder / "a.csv")


def test_splits_in_any_case_and_rows_of_none(folder, caplog):
    splits = ("Train", " VAL", "validation", "")
    text = "image,depth,split\n" + "\n".join(f"{i},{d},{s}" for (i, d), s in zip(PAIRS, splits, strict=True))
    (folder / "a.csv").write_text(text)
    with caplog.at_level(logging.WARNING):
        found = {
            split: [
                sample.id
                for sample in DepthPairs(split, manifest=folder / "a.csv", encoding=DepthEncoding(depth_scale=1000))
            ]
            for split in ("train", "val")
        }
    assert found == {"train": ["i0.png"], "val": ["i1.png"]}
    assert (
        "some rows are in neither split, and left out ('validation' 1, '' 1). Write train, val or test." in caplog.text
    )


def test_one_image_may_have_several_maps_and_be_in_val_and_test(folder):
    rows = ["i0.png,d0.png,train", "i0.png,d1.png,train", "i2.png,d2.png,val", "i2.png,d2.png,test"]
    (folder / "a.csv").write_text("\n".join(["image,depth,split", *rows]))
    assert len(read_manifest(folder / "a.csv")) == 4


def test_a_folder_that_may_not_be_read(folder, monkeypatch):
    (folder / "a.csv").write_text(table())

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(PermissionError, match=r"expected a folder that can be read\. Try chmod \+rx on it"):
        read_manifest(folder / "a.csv")
