"""Data sets by name, from a server on the loopback; and what conf/download says of the real ones."""

import hashlib
import io
import json
import logging
import re
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.file_download
import pytest
import yaml
from file_server import file_server

from depth_lightning import __main__ as program
from depth_lightning.commands.download import RECORD, _files, download
from depth_lightning.runs import objects
from depth_lightning.runs.options import check
from depth_lightning.settings import SettingError

SETS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf/download").glob("*.yaml"))


def packed(**members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return content.getvalue()


TRAIN, VAL, LIST = packed(train__a=b"1" * 50_000), packed(val__b=b"2"), b"a list"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    with file_server({"train.tar": TRAIN, "val.tar": VAL, "list.txt": LIST}) as running:
        yield running


@pytest.fixture
def mine(server, compose_config, tmp_path):
    """mine(overrides): the command's configuration for a data set that is one yaml of the user's own."""
    description = {
        "title": "Mine",
        "page": "https://host/mine",
        "licence": "CC BY 4.0",
        "citation": "Me, 2025",
        "files": {
            "list": {"url": f"{server.url}/list.txt", "bytes": 6, "hash": f"md5:{hashlib.md5(LIST).hexdigest()}"},
            "tars": {"url": f"{server.url}/{{name}}.tar", "names": {"train": None, "val": None}},
        },
        "next": "train data=pairs data.root={output}",
    }
    (tmp_path / "conf/download").mkdir(parents=True)
    (tmp_path / "conf/download/mine.yaml").write_text(yaml.safe_dump(description))

    def compose(*overrides):
        typed = [f"hydra.searchpath=[file://{tmp_path}/conf]", "download=mine", f"output={tmp_path}/data"]
        return compose_config("download", [*typed, *overrides], tmp_path)

    return compose


def fetched(server):
    return [name for method, name, _ in server.requests if method == "GET"]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_set_is_one_file(mine, server, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        download(mine())
    found = contents(tmp_path / "data")
    record = json.loads(found.pop(RECORD))
    assert found == {"list.txt": LIST, "train/a": b"1" * 50_000, "val/b": b"2"}
    urls = [f"{server.url}/{name}" for name in ("list.txt", "train.tar", "val.tar")]
    assert record["Mine"]["licence"] == "CC BY 4.0" and list(record["Mine"]["files"]) == urls
    assert record["Mine"]["files"][urls[1]] == {"bytes": len(TRAIN), "hash": None}
    messages = caplog.messages
    assert messages[:2] == ["Mine: https://host/mine", "Licence: CC BY 4.0. Please cite: Me, 2025"]
    assert re.fullmatch(
        r"To download: 71\.7 kB in 3 files\. On the disk: about 71\.7 kB, and 133 kB while unpacking; .* free\.",
        messages[2],
    )
    assert "train.tar: no checksum is known, only its length is verified." in messages
    assert (
        messages[-1]
        == f"{tmp_path}/data is complete. Next: python -m depth_lightning train data=pairs data.root={tmp_path}/data"
    )


def test_what_is_complete_is_not_fetched_again(mine, server, tmp_path, caplog):
    download(mine("parts=[tars]"))
    assert fetched(server) == ["train.tar", "val.tar"]
    download(mine())
    assert fetched(server) == ["train.tar", "val.tar", "list.txt"]
    (tmp_path / "data/list.txt").unlink()
    download(mine())
    assert fetched(server)[3:] == ["list.txt"]
    with caplog.at_level(logging.INFO):
        download(mine())
    assert fetched(server)[4:] == [] and caplog.messages[-1].startswith(
        f"{tmp_path}/data is complete. Next: python -m depth_lightning train"
    )


def test_an_interrupted_download_continues(mine, server, tmp_path):
    server.cut_after = 0
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.tar.part").write_bytes(TRAIN[:30_000])
    with pytest.raises(ConnectionError, match=r"/train\.tar: the download ended after 30 kB: .*continues there"):
        download(mine("parts=[tars]"))
    server.cut_after = None
    server.requests.clear()
    download(mine())
    assert ("GET", "train.tar", "bytes=30000-") in server.requests
    assert contents(tmp_path / "data")["train/a"] == b"1" * 50_000


def test_a_missing_file_is_known_before_the_download(mine, server):
    del server.files["val.tar"]
    with pytest.raises(FileNotFoundError, match=r"/val\.tar: the server has no such file \(status 404\)\."):
        download(mine())
    assert not fetched(server)


def test_a_wrong_checksum(mine, tmp_path):
    with pytest.raises(
        ValueError, match=r"/list\.txt: expected the checksum md5:0+, received [0-9a-f]{32}\. .*is deleted"
    ):
        download(mine(f"download.files.list.hash='md5:{'0' * 32}'"))
    assert not contents(tmp_path / "data")


def test_too_little_disk_is_refused_before_the_download(mine, server, tmp_path, monkeypatch):
    with pytest.raises(OSError, match=rf"^{tmp_path}/data: the data set takes 1,000,000 GB, and .* are free\."):
        download(mine("+download.files.tars.unpacked_bytes=1000000000000000"))
    assert not fetched(server) and not (tmp_path / "data").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=len(TRAIN) * 2 + len(VAL) + 5))
    with pytest.raises(OSError, match="the data set takes 133 kB, and 133 kB are free"):  # one byte is missing
        download(mine())
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=len(TRAIN) * 2 + len(VAL) + 6))
    download(mine())


def test_a_tar_with_a_path_outside(mine, server, tmp_path):
    server.files["val.tar"] = packed(**{"val__good": b"good", "..__evil": b"evil"})
    with pytest.raises(ValueError, match=r"val\.tar: expected files below its own folder, found '\.\./evil'"):
        download(mine())
    assert not (tmp_path / "evil").exists() and "val/good" not in contents(tmp_path / "data")
    assert "train/a" in contents(tmp_path / "data")  # what came before is complete, and recorded


@pytest.mark.parametrize(
    "typed, message",
    [
        ("parts=[train]", r"parts is a list of names among list, tars, or null for all, found \['train'\]"),
        (
            "download.files.list.url=ftp://host/a",
            "download.files.list.url is an address, https://…, found 'ftp://host/a'",
        ),
        ("download.files.tars.names.train=abc", "download.files.tars.names.train is sha256, sha512, md5, a colon"),
        ("+download.files.tars.unpack=true", "download.files.tars.unpack is not an option"),
        ("+download.licens=MIT", r"download.licens is not an option\. Did you mean download.licence\?"),
        ("download.next=null", "download.next is a text, found None"),
    ],
)
def test_descriptions_that_cannot_be_right(typed, message, mine, server):
    with pytest.raises(SettingError, match=f"^{message}"):
        download(mine(typed))
    assert not server.requests


def copy_list(output):
    (output / "copy").write_bytes((output / "list.txt").read_bytes())


def test_prepare_is_called_at_the_end(mine, server, tmp_path):
    download(mine(f"+download.prepare={__name__}.copy_list"))
    assert (tmp_path / "data/copy").read_bytes() == LIST
    server.requests.clear()
    with pytest.raises(Exception, match="nothing"):  # before anything is fetched
        download(mine(f"+download.prepare={__name__}.nothing", f"output={tmp_path}/other"))
    assert not server.requests


@pytest.mark.parametrize(
    "typed, message",
    [
        (["output=x"], r"download is missing\. Type the name of a data set, such as oakd; --help lists them\."),
        (["download=oakd"], r"output is missing\. Type output=…"),
    ],
)
def test_what_must_be_typed(typed, message, compose_config, tmp_path):
    with pytest.raises(SettingError, match=f"^{message}$"):
        download(compose_config("download", typed, tmp_path))


def test_a_broken_record_is_named(mine, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / RECORD).write_text("[")
    with pytest.raises(ValueError, match=rf"{RECORD}: expected a record of downloads, .*Delete it\."):
        download(mine())


@pytest.mark.parametrize("name", SETS)
def test_the_sets_of_the_project(name, compose_config, tmp_path):
    cfg = compose_config("download", [f"download={name}", f"output={tmp_path}"])
    check(cfg, "download")
    about = objects.plain(cfg.download)
    files = [each.file for part, entry in about["files"].items() for each in _files(part, entry)]
    assert len({file.name for file in files}) == len({file.url for file in files}) == len(files)
    assert all(file.url.startswith("https://") for file in files)
    command, *overrides = about["next"].replace("{output}", str(tmp_path)).split()
    cfg = compose_config(command, [word for word in overrides if word != "checkpoint=…"], tmp_path)
    assert str(cfg.data.root).startswith(str(tmp_path))
    check(cfg, command)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["nyu_h5", "output=x"], ["download=nyu_h5", "output=x"]),
        (["download=nyu_h5", "output=x"], ["download=nyu_h5", "output=x"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_the_set_is_typed_as_a_word(words, expected, monkeypatch):
    run = []
    monkeypatch.setattr(program, "program", lambda command, typed: run.append((command, sys.argv[2:])))
    monkeypatch.setattr(sys, "argv", ["depth-lightning", "download", *words])
    program.main()
    assert run == [("download", expected)]
