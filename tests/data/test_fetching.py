"""Downloads from a server on the loopback: broken off, resumed, damaged, missing, too large."""

import hashlib
import re
import shutil
from types import SimpleNamespace

import huggingface_hub.file_download
import numpy as np
import pytest
from file_server import file_server

from depth_lightning.data.fetching import RemoteFile, ask_length, check_space, fetch
from depth_lightning.settings import SettingError
from depth_lightning.wording import file_size

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)  # between its retries
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what arrives is kept in such pieces
    with file_server({"a.bin": CONTENT}) as running:
        yield running


def ranges(server):
    return [asked for method, _, asked in server.requests if method == "GET"]


@pytest.mark.parametrize(
    "hash", [None, SHA256, f"md5:{hashlib.md5(CONTENT).hexdigest()}", SHA256.upper().replace("SHA", "sha")]
)
def test_a_file_arrives_whole_and_once(hash, server, tmp_path):
    file = ask_length(RemoteFile(f"{server.url}/a.bin", hash=hash))
    assert file.bytes == len(CONTENT)
    assert fetch(file, tmp_path) == fetch(file, tmp_path) == tmp_path / "a.bin"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and list(tmp_path.iterdir()) == [tmp_path / "a.bin"]
    assert ranges(server) == [""]


def test_a_lost_connection_is_taken_up_again(server, tmp_path):
    server.cut_after = 100_000
    assert fetch(RemoteFile(f"{server.url}/a.bin", hash=SHA256), tmp_path).read_bytes() == CONTENT
    assert ranges(server) == ["", "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("with_ranges", [True, False])
def test_the_next_call_continues_a_killed_one(with_ranges, server, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(seconds):
        raise Killed

    file = RemoteFile(f"{server.url}/a.bin", hash=SHA256)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", die)
    server.cut_after = 100_000
    with pytest.raises(Killed):
        fetch(file, tmp_path)
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:100_000] and not (tmp_path / "a.bin").exists()
    server.cut_after, server.ranges = None, with_ranges
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert ranges(server) == ["", "bytes=100000-"]


def test_a_server_that_goes_away_leaves_what_arrived(server, tmp_path):
    file = RemoteFile(f"{server.url}/a.bin", bytes=len(CONTENT))
    server.cut_after = 0
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    message = (
        rf"^{server.url}/a\.bin: the download ended after 1 kB: .*Type the same command again: it continues there\.$"
    )
    with pytest.raises(ConnectionError, match=message):
        fetch(file, tmp_path)
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1000]


def test_a_wrong_checksum_is_deleted(server, tmp_path):
    wrong = f"sha256:{'0' * 64}"
    message = rf"^{server.url}/a\.bin: expected the checksum {wrong}, received {SHA256[7:]}\. .* is deleted"
    with pytest.raises(ValueError, match=message):
        fetch(RemoteFile(f"{server.url}/a.bin", hash=wrong), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_length_is_deleted_and_known_before_the_download(server, tmp_path):
    file = RemoteFile(f"{server.url}/a.bin", bytes=299_999)
    with pytest.raises(ValueError, match=r"a\.bin: expected 299,999 bytes, the server has 300,000\..*conf/download"):
        ask_length(file)
    with pytest.raises(ValueError, match=r"a\.bin: expected 299,999 bytes, received 300,000\."):
        fetch(file, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_left_of_a_longer_version_is_not_continued(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(bytes(400_000))
    assert fetch(ask_length(RemoteFile(f"{server.url}/a.bin")), tmp_path).read_bytes() == CONTENT


def test_a_missing_file(server, tmp_path):
    file = RemoteFile(f"{server.url}/b.bin")
    message = (
        r"/b\.bin: the server has no such file \(status 404\)\. Look for its new address on the data set's page\.$"
    )
    for call in (lambda: ask_length(file), lambda: fetch(file, tmp_path)):
        with pytest.raises(FileNotFoundError, match=message):
            call()


def test_a_server_that_is_not_there():
    with file_server({}) as gone:
        file = RemoteFile(f"{gone.url}/a.bin")
    with pytest.raises(OSError, match=rf"^{file.url} cannot be reached: .*refused"):
        ask_length(file)


def test_a_disk_that_becomes_full_is_no_fault_of_the_server(server, tmp_path, monkeypatch):
    def full(url, file, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("depth_lightning.data.fetching.http_get", full)
    with pytest.raises(OSError, match=rf"{re.escape(str(tmp_path))}/a\.bin\.part could not be written\. No space left"):
        fetch(RemoteFile(f"{server.url}/a.bin"), tmp_path)


def test_too_little_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    check_space(tmp_path / "new" / "folder", 10**9, "the data set")
    with pytest.raises(OSError, match=r"/new: the data set takes 2\.97 GB, and 1 GB are free\. Make room, or choose"):
        check_space(tmp_path / "new", 2_972_037_809, "the data set")


@pytest.mark.parametrize("size, words", [(0, "0 kB"), (2626, "2.63 kB"), (3_898_436, "3.9 MB"), (1.75e12, "1,750 GB")])
def test_sizes_in_words(size, words):
    assert file_size(int(size)) == words


@pytest.mark.parametrize(
    "values, message",
    [
        ({"url": "ftp://host/a"}, "url is an address, https://…, found 'ftp://host/a'"),
        ({"url": "https://host/"}, "file is the name of a file, found '' for https://host/"),
        ({"url": "https://host/a", "file": "../a"}, r"file is the name of a file, found '\.\./a'"),
        ({"url": "https://host/a", "hash": "sha256:12"}, "hash is sha256, sha512, md5, a colon and a checksum"),
        ({"url": "https://host/a", "hash": "12"}, "hash is sha256"),
        ({"url": "https://host/a", "bytes": -1}, "bytes is a whole number"),
    ],
)
def test_values_that_cannot_be_right(values, message):
    with pytest.raises(SettingError, match=f"^{message}"):
        RemoteFile(**values)


def test_the_name_on_the_disk():
    assert RemoteFile("https://host/s/download?path=%2F&files=b.zip", file="b.zip").name == "b.zip"
    assert RemoteFile("https://host/a/b.tar?download=true").name == "b.tar"
