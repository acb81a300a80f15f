"""A file or folder is whole under its name, whatever ends its writing."""

import errno
import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from depth_lightning import atomic
from depth_lightning.atomic import atomically, explained, write_bytes, write_text

PACKAGE = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_the_place_of_another_and_a_folder_that_of_none(tmp_path, durable):
    path, folder = tmp_path / "new" / "a.json", tmp_path / "folder"
    write_bytes(path, b"before", durable=durable)
    with atomically(path, durable=durable) as aside:
        aside.write_text("after")
        assert path.read_bytes() == b"before"
        assert aside.parent == path.parent and aside.name.startswith(".") and aside.suffix == ".json"
    folder.mkdir()
    with atomically(folder, durable=durable) as aside:
        (aside / "deep").mkdir(parents=True)
        (aside / "deep" / "b").write_text("whole")
        assert list(folder.iterdir()) == []
    assert path.read_bytes() == b"after"
    assert [file.relative_to(tmp_path).as_posix() for file in sorted(tmp_path.rglob("*"))] == [
        "folder",
        "folder/deep",
        "folder/deep/b",
        "new",
        "new/a.json",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError("of something else"), OSError("likewise")])
def test_what_ends_the_writing_leaves_what_was_there(tmp_path, error):
    write_text(tmp_path / "a", "before")
    expected = error if isinstance(error, type) else type(error)
    with pytest.raises(expected) as raised, atomically(tmp_path / "a") as aside:
        aside.write_text("hal")
        raise error
    assert isinstance(error, type) or raised.value is error
    with pytest.raises(RuntimeError), atomically(tmp_path / "folder") as aside:
        aside.mkdir()
        (aside / "a").write_text("hal")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_names_as_long_as_they_may_be(tmp_path):
    name = "é" * 125 + ".png"
    write_bytes(tmp_path / name, b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_disk_that_takes_no_more_is_named_with_what_it_takes(tmp_path):
    """A limit on the size of files fails in the middle of one, as a full disk does."""
    write_bytes(tmp_path / "a.bin", b"before")
    code = (
        "import resource, sys; from pathlib import Path; from depth_lightning.atomic import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_bytes(Path('a.bin'), bytes(1_200_000))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"OSError: [Errno {errno.EFBIG}] a.bin could not be written. File too large: it takes 1.2 MB."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"before"


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named_with_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda folder: type("", (), {"free": 3_100_000}))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError) as error:
        write_bytes(tmp_path / "a", bytes(52_000_000))
    assert error.value.errno == errno.ENOSPC
    reason = "could not be written. No space left on device: "
    assert error.value.strerror == f"{tmp_path}/a {reason}it takes 52.0 MB, and 3.1 MB are free."
    with pytest.raises(OSError) as error, atomically(tmp_path / "folder") as folder:
        write_bytes(folder / "weights.pth", bytes(24_000_000))
    assert error.value.strerror == f"{tmp_path}/folder/weights.pth {reason}it takes 24.0 MB, and 3.1 MB are free."
    with pytest.raises(OSError) as error, atomically(tmp_path / "b"):
        full()
    assert error.value.strerror == f"{tmp_path}/b {reason}3.1 MB are free."
    with pytest.raises(OSError) as error, atomically(tmp_path / "b"), atomically(tmp_path / "c"):
        full()
    assert error.value.strerror == f"{tmp_path}/c {reason}3.1 MB are free."
    with pytest.raises(OSError) as error, explained(tmp_path / "log.csv"):
        full()
    assert error.value.strerror == f"{tmp_path}/log.csv {reason}3.1 MB are free."
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError) as error:
        write_text(tmp_path / "no" / "such" / "c", "")
    assert error.value.strerror == f"{tmp_path}/no/such/c {reason}3.1 MB are free."
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match=rf"file/a could not be written\. File exists: {tmp_path}/file\.$"):
        write_text(tmp_path / "file" / "a", "")
    with pytest.raises(IsADirectoryError, match=rf"{tmp_path}/folder could not be written\. Is a directory\.$"):
        write_text(tmp_path / "folder", "")
    exists = rf"{tmp_path}/folder exists: another process has written"
    with pytest.raises(FileExistsError, match=exists), atomically(tmp_path / "folder") as aside:
        aside.mkdir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "mine"]


def test_a_library_s_message_names_the_file_and_not_what_it_was_written_as(tmp_path):
    with pytest.raises(OSError, match=rf"^cannot open {tmp_path}/a\.parquet$"), atomically(tmp_path / "a.parquet") as a:
        raise OSError(f"cannot open {a}")


def write_again_and_again(path, letter):
    for _ in range(100):
        write_bytes(path, letter * 200_000)


def test_of_writers_at_once_one_s_file_is_there(tmp_path):
    """Processes and threads: at any moment a reader sees a whole file of one of them."""
    path, letters = tmp_path / "a", (b"a", b"b", b"c")
    write_bytes(path, b"0" * 200_000)
    wholes = {hashlib.sha256(letter * 200_000).digest() for letter in (b"0", *letters)}
    processes = [multiprocessing.Process(target=write_again_and_again, args=(path, letter)) for letter in letters]
    with ThreadPoolExecutor(2) as threads:
        for process in processes:
            process.start()
        ours = [threads.submit(write_again_and_again, path, letter) for letter in letters]
        while any(process.is_alive() for process in processes) or not all(one.done() for one in ours):
            assert hashlib.sha256(path.read_bytes()).digest() in wholes
        for one in ours:
            one.result()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_writer_left_is_removed_by_the_next_process(tmp_path):
    """And not what a living one writes at the time."""
    code = (
        "import os, signal, sys; from pathlib import Path; from depth_lightning.atomic import atomically\n"
        "with atomically(Path(sys.argv[1])) as aside:\n"
        "    aside.mkdir()\n"
        "    (aside / 'part').write_text('half')\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
        "    (aside / 'part').write_text('whole')"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}

    def start(name):
        command = [sys.executable, "-c", code, name]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        return process

    killed, living = start("ex"), start("living")
    killed.kill()
    killed.communicate()
    assert len(list(tmp_path.glob(".partial-*-ex"))) == 1
    write_text(tmp_path / "other", "")
    assert [path.name[-7:] for path in sorted(tmp_path.iterdir())] == ["-living", "other"]
    living.communicate()
    assert living.returncode == 0
    assert (tmp_path / "living" / "part").read_text() == "whole"


@pytest.mark.parametrize(
    ("name", "untouched_s", "kept"),
    [
        ("{machine}-{ours}-{start}-0-a", 0, True),  # another thread's
        ("{machine}-{ours}-000000-0-a", 0, False),  # of an earlier process with our number
        ("{machine}-1-000000-0-a", 10**7, True),  # lives, though it has written nothing for long
        ("{machine}-999999999-000000-0-a", 0, False),
        ("00000000-{ours}-{start}-0-a", 3600, True),  # of another machine, which may be alive
        ("00000000-{ours}-{start}-0-a", 10**5, False),
        ("of-the-user-s-own", 10**7, True),
    ],
)
def test_only_what_is_abandoned_for_sure_is_removed(tmp_path, name, untouched_s, kept):
    name = name.format(machine=atomic._machine(), ours=os.getpid(), start=atomic._START)
    file, folder = tmp_path / f".partial-{name}", tmp_path / f".partial-{name}.folder"
    file.write_text("half")
    folder.mkdir()
    (folder / "part").write_text("half")
    for path in (file, folder / "part", folder):
        os.utime(path, times=(time.time() - untouched_s,) * 2)
    write_text(tmp_path / "b", "")
    assert (file.exists(), (folder / "part").exists()) == (kept, kept)


def test_a_part_that_was_written_lately_keeps_another_machine_s_folder(tmp_path):
    folder = tmp_path / ".partial-00000000-7-000000-0-a"
    folder.mkdir()
    (folder / "part").write_text("half")
    os.utime(folder, times=(0, 0))
    write_text(tmp_path / "b", "")
    assert (folder / "part").exists()


def test_the_machine_is_told_from_others():
    """The same in every process of this one, and of hexadecimal digits."""
    code = "from depth_lightning import atomic; print(atomic._machine(), atomic._START)"
    found = [
        subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert found[0][0] == found[1][0] == atomic._machine()
    assert found[0][1] != found[1][1]
    assert re.fullmatch("[0-9a-f]{8}", atomic._machine())
