"""Whatever a library raises over a file is raised under the file's name, as one of two errors."""

import csv
import errno
import fcntl
import lzma
import os
import socket
import struct
import zipfile
import zlib

import cv2
import h5py
import numpy as np
import pytest

from depth_lightning.data.files import read_image, read_map
from depth_lightning.data.nyu import read_h5
from depth_lightning.data.reading import MAX_BYTES, BrokenError, naming, read_lines, read_text


def _refused_by_opencv():
    try:
        cv2.resize(np.zeros((0, 0), np.uint8), (1, 1))
    except cv2.error as error:
        return error
    raise AssertionError


LIBRARY_ERRORS = [
    _refused_by_opencv(),
    TypeError("'NoneType' object is not subscriptable"),
    AttributeError("'bytes' object has no attribute 'shape'"),
    zlib.error("Error -3 while decompressing data"),
    lzma.LZMAError("Corrupt input data"),
    RuntimeError("File 'depth.npy' is encrypted"),
    NotImplementedError("That compression method is not supported"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    struct.error("unpack requires a buffer of 4 bytes"),
    RecursionError("maximum recursion depth exceeded"),
    OverflowError("cannot fit 'int' into an index-sized integer"),
    KeyError("depth"),
    IndexError("list index out of range"),
    ValueError("could not convert string to float: b'abc'"),
    EOFError(),
    OSError("Unable to synchronously open file (truncated file)"),
    zipfile.BadZipFile("Bad CRC-32"),
    csv.Error("field larger than field limit"),
    AssertionError(),
]


@pytest.mark.parametrize("raised", LIBRARY_ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_becomes_a_broken_sample_with_its_name(raised):
    with pytest.raises(ValueError) as caught, naming("a/b.png", "an image"):
        raise raised
    assert type(caught.value) is ValueError
    assert str(caught.value).startswith("a/b.png: expected an image, found one that is cut short or damaged (")
    assert str(caught.value).endswith("). Copy it again.")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 320
    assert caught.value.__cause__ is raised


def test_own_words_stay_and_get_the_name_once():
    with pytest.raises(ValueError) as caught, naming("a.png", "a map"), naming("a.png", "an image"):
        raise BrokenError("expected 16 bits, found 8.")
    assert str(caught.value) == "a.png: expected 16 bits, found 8."
    with pytest.raises(ModuleNotFoundError, match=r"^pip install it$"), naming("a.png", "an image"):
        raise ModuleNotFoundError("pip install it")
    with pytest.raises(KeyboardInterrupt), naming("a.png", "an image"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 TiB"), MemoryError()])
def test_what_memory_does_not_hold(error):
    message = r"a\.png: expected an image, found one that does not fit into memory"
    with pytest.raises(ValueError, match=message), naming("a.png", "an image"):
        raise error


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EACCES, PermissionError, "found no permission. Try chmod +r on it."),
        (errno.EAGAIN, BlockingIOError, "found one that another process has locked"),
        (
            errno.ENOLCK,
            OSError,
            "cannot lock it, such as NFS. If nothing writes it, set the environment variable HDF5_USE",
        ),
        (errno.EOPNOTSUPP, OSError, "variable HDF5_USE_FILE_LOCKING=FALSE."),
        (errno.EMFILE, OSError, "found too many files open in this process. Raise the limit (ulimit -n 4096)"),
        (errno.ENFILE, OSError, "found too many files open on this machine."),
        (errno.ESTALE, OSError, "found that the network file system has lost it (stale file handle)."),
        (errno.EIO, OSError, "found that the disk or the network fails (input/output error)."),
        (errno.ELOOP, OSError, "found too many levels of symbolic links."),
    ],
)
def test_a_file_that_may_be_whole_is_not_called_damaged(number, kind, message):
    with pytest.raises(OSError) as caught, naming("a.h5", "an HDF5 file"):
        raise OSError(number, os.strerror(number), "a.h5")
    assert type(caught.value) is kind
    assert str(caught.value).startswith("a.h5: expected a file that can be read, found ")
    assert message in str(caught.value) and "damaged" not in str(caught.value)


def _frame(path):
    with h5py.File(path, "w") as file:
        file["rgb"], file["depth"] = np.zeros((3, 28, 42), np.uint8), np.ones((28, 42), np.float32)


def test_an_h5_file_that_is_locked(tmp_path):
    _frame(tmp_path / "a.h5")
    with (tmp_path / "a.h5").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a program has it that writes the file
        for read in (read_h5, lambda path: read_map(path, "depth")):
            with pytest.raises(
                BlockingIOError, match=r"a\.h5: .*another process has locked.*HDF5_USE_FILE_LOCKING=FALSE"
            ):
                read(tmp_path / "a.h5")
    assert read_h5(tmp_path / "a.h5")[1].shape == (28, 42)


def test_an_h5_file_whose_writer_was_killed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file["depth"] = np.ones((28, 42), np.float32)
        file.flush()
        (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    with pytest.raises(OSError, match=r"b\.h5: expected a file that can be read, found one that .*h5clear -s \S*b\.h5"):
        read_map(tmp_path / "b.h5")


def test_an_h5_file_with_a_filter_that_is_not_here(tmp_path):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((28, 42))
    made.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 100))  # Blosc
    with h5py.File(tmp_path / "a.h5", "w") as file:
        size = h5py.h5s.create_simple((28, 42))
        h5py.h5d.create(file.id, b"depth", h5py.h5t.IEEE_F32LE, size, made).write_direct_chunk((0, 0), b"abc" * 100)
    with pytest.raises(
        OSError, match=r"a\.h5: .* compressed with a filter that HDF5 does not have here .*HDF5_PLUGIN_PATH"
    ):
        read_map(tmp_path / "a.h5")


def test_too_many_open_files(tmp_path, monkeypatch):
    import resource

    _frame(tmp_path / "a.h5")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((28, 42), np.uint16))
    np.save(tmp_path / "a.npy", np.ones((28, 42)))
    read_h5(tmp_path / "a.h5"), read_image(tmp_path / "a.png"), read_map(tmp_path / "a.npy")  # imports done
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for read, name in ((read_h5, "a.h5"), (read_image, "a.png"), (read_map, "a.npy")):
            with pytest.raises(
                OSError, match=rf"{name}: .*found too many files open in this process.*data\.num_workers"
            ):
                read(tmp_path / name)
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".pfm", ".h5", ".tif"])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "folder", "link to a FIFO"])
def test_what_is_no_file_is_not_waited_for(kind, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to(tmp_path / "fifo")
    readers = [read_map, *([read_image] if suffix in (".png", ".tif") else []), *([read_h5] if suffix == ".h5" else [])]
    for read in readers:
        with pytest.raises(OSError, match=rf"a{suffix}: expected a file, found a {kind.split()[-1]} of that name"):
            read(path)


def test_a_file_that_is_too_large_to_be_read_whole(tmp_path):
    for name in ("a.png", "a.npy", "a.pfm"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ValueError, match=r"a\.png: expected at most 2 GiB, found 2 GiB"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.npy: expected an array written by NumPy"):
        read_map(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a\.pfm: expected a PFM file, found one that begins with"):
        read_map(tmp_path / "a.pfm")


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("/nowhere/a.png")
    with pytest.raises(OSError, match=r"loop\.png: expected a file that can be read, found too many levels"):
        read_image(tmp_path / "loop.png")
    with pytest.raises(FileNotFoundError, match=r"^No file at \S*gone\.png\. Was it moved"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"^No file at \S*gone\.png/a\.h5"):
        (tmp_path / "gone.png").unlink()
        (tmp_path / "gone.png").touch()
        read_h5(tmp_path / "gone.png" / "a.h5")


TEXT = "a.png\nKüche 目.png\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_in_every_unicode(encoding, end, tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_lines(tmp_path / "a.txt") == ["a.png", "Küche 目.png", ""]


def test_utf_16_of_the_other_byte_order(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert read_text(tmp_path / "a.txt") == TEXT


def test_names_may_have_what_str_takes_for_the_end_of_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("a\u2028b.png\nc\x0bd\x85.png", encoding="utf-8")
    assert read_lines(tmp_path / "a.txt") == ["a\u2028b.png", "c\x0bd\x85.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("latin-1", "replace"), "found the byte 0xfc in line 2, which is not UTF-8. Save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "found a NUL character in line 1: UTF-16 without a byte order mark"),
        (b"a.png\nb\0.png", "found a NUL character in line 2"),
        (b"\xff\xfea", "which is not UTF-16"),
        (b"\x89PNG\r\n\x1a\n", "found the byte 0x89 in line 1"),
    ],
)
def test_other_texts_are_refused_by_name(content, message, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_text(tmp_path / "a.txt")
    assert str(caught.value).startswith(f"{tmp_path}/a.txt: expected text in UTF-") and message in str(caught.value)
