"""Archives with what they should not hold: refused whole, with nothing outside of the folder and nothing half in it."""

import io
import os
import re
import stat
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from depth_lightning.data.archives import ASIDE, is_archive, unpack

FILES = {"a/1.txt": b"one", "a/b/2.txt": b"two" * 10**6, "3.bin": b""}


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def seven(path, members, folder):
    py7zr = pytest.importorskip("py7zr", reason="needs the extra download")
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, content in members:
            source = folder / "source"
            source.unlink(missing_ok=True)
            source.write_bytes(content) if isinstance(content, bytes) else source.symlink_to("/etc/passwd")
            archive.write(source, name)
    source.unlink()
    return path


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "x.zip", "X.ZIP", "x.whl", "x.7z"]
)
def test_files_arrive_where_they_belong(name, output, tmp_path):
    assert is_archive(name)
    path = tmp_path / name
    if name.endswith(".7z"):
        seven(path, FILES.items(), tmp_path)
    elif "tar" in name or "tgz" in name:
        modes = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}
        tar(path, [special("a", tarfile.DIRTYPE), *FILES.items()], modes.get(name.rpartition(".")[2], "w"))
    else:
        zipped(path, [("a/", b""), *FILES.items()])
    (output / "a").mkdir()
    (output / "a/1.txt").write_bytes(b"of an earlier call")
    (output / "a/mine.txt").write_bytes(b"mine")
    assert unpack(path, output) == 3
    assert contents(output) == {**FILES, "a/mine.txt": b"mine"}


@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x.7z"])
def test_only_what_is_wanted(name, output, tmp_path):
    path = tmp_path / name
    if name == "x.7z":
        seven(path, FILES.items(), tmp_path)
    else:
        (tar if name == "x.tar" else zipped)(path, FILES.items())
    assert unpack(path, output, ["a/*"]) == 2
    assert contents(output).keys() == {"a/1.txt", "a/b/2.txt"}
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: expected b/\* or c/\*, found none\.$"):
        unpack(path, output, ["b/*", "c/*"])


OUTSIDE = "expected files below its own folder, found {!r}. Do not trust it."
LINK = "expected nothing but files, found {!r}, which is a link or a device. Do not trust it."


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", r"..\evil.txt", r"C:\evil.txt", "//host/evil"]
)
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_path_outside_is_refused(kind, name, output, tmp_path):
    members = [("good.txt", b"good"), (name, b"evil"), ("later.txt", b"")]
    path = tmp_path / f"x.{kind}"
    zipped(path, members) if kind == "zip" else tar(path, members, "w:gz" if kind == "tar.gz" else "w")
    with pytest.raises(ValueError, match=re.escape(f"{path}: {OUTSIDE.format(name)}")):
        unpack(path, output)
    assert not list(output.iterdir()) and not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "good.txt"])
def test_a_link_or_a_device_in_a_tar_is_refused(kind, target, output, tmp_path):
    path = tar(
        tmp_path / "x.tar", [("good.txt", b"good"), special("a/link", kind, target), ("a/link/through.txt", b"evil")]
    )
    with pytest.raises(ValueError, match=re.escape(f"{path}: {LINK.format('a/link')}")):
        unpack(path, output)
    assert not list(output.iterdir())


def test_a_link_in_a_zip_is_refused(output, tmp_path):
    path = zipped(tmp_path / "x.zip", [("good.txt", b"good"), (link("a/link"), b"/etc/passwd")])
    with pytest.raises(ValueError, match=re.escape(f"{path}: {LINK.format('a/link')}")):
        unpack(path, output)
    assert not list(output.iterdir())


@pytest.mark.parametrize(
    "members, message", [([("../evil.txt", b"evil")], OUTSIDE), ([("good", b"1"), ("a/link", None)], LINK)]
)
def test_what_a_7z_should_not_hold_is_refused(members, message, output, tmp_path):
    path = seven(tmp_path / "x.7z", members, tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message.format(members[-1][0])}")):
        unpack(path, output)
    assert not list(output.iterdir()) and not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_damaged_archive_leaves_nothing(kind, output, tmp_path):
    path = tmp_path / f"x.{kind}"
    members = [(f"{number}.bin", os.urandom(50_000)) for number in range(4)]
    zipped(path, members) if kind == "zip" else tar(path, members, "w:gz" if kind == "tar.gz" else "w")
    whole = bytearray(path.read_bytes())
    whole[75_000:] = whole[75_000:120_000] if kind != "zip" else bytes(100) + whole[75_100:]
    path.write_bytes(whole)
    damaged = "found one that is cut short or damaged .*download it again"
    message = rf"^{re.escape(str(path))}: expected a {kind[:3]} file, {damaged}"
    with pytest.raises(ValueError, match=message):
        unpack(path, output)
    assert not list(output.iterdir())


def test_what_a_killed_call_left_is_removed(output, tmp_path):
    (output / ASIDE / "a").mkdir(parents=True)
    (output / ASIDE / "a/half.txt").write_bytes(b"half")
    unpack(tar(tmp_path / "x.tar", FILES.items()), output)
    assert contents(output) == FILES


def test_a_zip_that_is_too_large_for_the_disk(output, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2_000_000))
    with pytest.raises(OSError, match=r"unpacking x\.zip takes 3 MB, and 2 MB are free\."):
        unpack(zipped(tmp_path / "x.zip", FILES.items()), output)
    assert not list(output.iterdir())


def test_a_disk_that_becomes_full_is_no_fault_of_the_archive(output, tmp_path, monkeypatch):
    path = tar(tmp_path / "x.tar", FILES.items())
    opened = type(path).open

    def full(self, mode="r", *args, **kwargs):
        file = opened(self, mode, *args, **kwargs)
        if mode == "wb" and self.name == "2.txt":
            file.write = lambda content: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        return file

    monkeypatch.setattr(type(path), "open", full)
    with pytest.raises(OSError, match=r"a/b/2\.txt could not be written\. No space left on device"):
        unpack(path, output)
    assert not list(output.iterdir())


def test_without_py7zr(output, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "py7zr", None)
    (tmp_path / "x.7z").touch()
    with pytest.raises(ModuleNotFoundError, match=r"x\.7z needs py7zr: pip install 'depth-lightning\[download\]'$"):
        unpack(tmp_path / "x.7z", output)


@pytest.mark.parametrize("name", ["x.mat", "x.tar.part", "x.gz"])
def test_other_files_are_no_archives(name):
    assert not is_archive(name)
