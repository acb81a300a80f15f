import hashlib
import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PureWindowsPath
from threading import Thread

import pytest
from huggingface_hub import constants

from depth_lightning.models import RELEASES, find_release, resolve_weights

CONTENT = b"weights"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def hub(monkeypatch):
    """A local stand-in for the hub that holds every file; what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(CONTENT)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield asked
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_downloaded_once_and_its_licence_told(hub, cache, caplog):
    source = "depth-anything/Depth-Anything-V2-Metric-VKITTI-Large"
    with caplog.at_level(logging.INFO, "depth_lightning"):
        path = resolve_weights(source)
    assert path.is_relative_to(cache)
    assert path.name == "depth_anything_v2_metric_vkitti_vitl.pth"
    assert path.read_bytes() == CONTENT
    assert f"/{source}/resolve/main/{path.name}" in hub
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "CC-BY-NC-4.0: no commercial use" in record.message
    hub.clear()
    assert resolve_weights(source) == path
    assert hub == []


def test_a_download_with_another_sha256_is_an_error(hub):
    with pytest.raises(ValueError, match=f"SHA-256 is {hashlib.sha256(CONTENT).hexdigest()}, expected 715fade1"):
        resolve_weights("depth-anything/Depth-Anything-V2-Small")


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(cache):
    with pytest.raises(ConnectionError) as error:
        resolve_weights("depth-anything/Depth-Anything-V2-Base")
    for part in (
        "https://huggingface.co/depth-anything/Depth-Anything-V2-Base/resolve/main/depth_anything_v2_vitb.pth",
        "model.weights=/path/to/depth_anything_v2_vitb.pth",
        str(cache),
        "HF_HOME",
    ):
        assert part in str(error.value)


def test_a_repository_of_transformers_is_a_folder_with_its_config(hub, cache):
    source = "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
    folder = resolve_weights(source)
    assert folder.is_relative_to(cache)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert find_release(folder) == find_release(source)
    hub.clear()
    assert resolve_weights(source) == resolve_weights(folder) == folder
    assert hub == []


def test_without_a_network_a_repository_of_transformers_is_to_be_copied_whole():
    with pytest.raises(ConnectionError) as error:
        resolve_weights("depth-anything/Depth-Anything-V2-Base-hf")
    assert "Depth-Anything-V2-Base-hf/tree/main (config.json and model.safetensors)" in str(error.value)
    assert "model.weights=/path/to/Depth-Anything-V2-Base-hf" in str(error.value)


@pytest.mark.parametrize("source", ["LiheYoung/depth_anything_vits14", "LiheYoung/depth-anything-large-hf"])
def test_a_hub_id_of_v1_is_refused(source):
    with pytest.raises(ValueError, match=r"Depth Anything V1.* depth-anything/Depth-Anything-V2-Small"):
        resolve_weights(source)


@pytest.mark.parametrize(
    ("source", "repo", "level", "licence"),
    [
        ("vit_small_patch14_reg4_dinov2", "vit_small_patch14_reg4_dinov2.lvd142m", logging.INFO, "apache-2.0."),
        (
            "vit_base_patch16_dinov3.lvd1689m",
            "vit_base_patch16_dinov3.lvd1689m",
            logging.WARNING,
            "-license: read its terms.",
        ),
        (
            "vit_tiny_patch16_dinov3_qkvb",
            "vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m",
            logging.WARNING,
            "fair-noncommercial-research-license: no commercial use.",
        ),
    ],
)
def test_weights_of_timm_are_downloaded_by_hub_id(source, repo, level, licence, hub, cache, caplog):
    with caplog.at_level(logging.INFO, "depth_lightning"):
        path = resolve_weights(f"timm/{source}")
    assert path.is_relative_to(cache) and path.name == "model.safetensors" and path.read_bytes() == CONTENT
    assert f"/timm/{repo}/resolve/main/model.safetensors" in hub
    [record] = caplog.records
    assert (record.levelno, record.message.startswith(f"timm/{repo} is licensed under ")) == (level, True)
    assert record.message.endswith(licence)


def test_a_path_is_itself(tmp_path, monkeypatch, caplog):
    path = tmp_path / "depth_anything_v2_vits.pth"
    path.write_bytes(CONTENT)
    with caplog.at_level(logging.INFO, "depth_lightning"):
        assert resolve_weights(path) == path
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert "Apache-2.0" in record.message
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_weights("~/depth_anything_v2_vits.pth") == path


@pytest.mark.parametrize("source", ["someone/depth", "missing.pth", "depth_anything_v2_vits.pth", "."])
def test_neither_a_file_nor_a_known_id(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        resolve_weights(source)
    assert str(error.value).startswith(f"{source} is neither")
    assert all(release.repo in str(error.value) for release in RELEASES)


@pytest.mark.parametrize(
    ("source", "encoder", "output", "max_depth", "licence"),
    [
        ("depth-anything/Depth-Anything-V2-Small", "vits", "relative", None, "Apache-2.0"),
        ("depth-anything/Depth-Anything-V2-Large", "vitl", "relative", None, "CC-BY-NC-4.0"),
        ("depth-anything/Depth-Anything-V2-Metric-Hypersim-Base", "vitb", "metric", 20.0, "CC-BY-NC-4.0"),
        ("depth-anything/Depth-Anything-V2-Metric-VKITTI-Small", "vits", "metric", 80.0, "Apache-2.0"),
        ("depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf", "vitl", "metric", 80.0, "CC-BY-NC-4.0"),
        (Path("some/Depth-Anything-V2-Base-hf"), "vitb", "relative", None, "CC-BY-NC-4.0"),
        (Path("some/depth_anything_v2_vitb.pth"), "vitb", "relative", None, "CC-BY-NC-4.0"),
        ("depth_anything_v2_metric_vkitti_vitl.pth", "vitl", "metric", 80.0, "CC-BY-NC-4.0"),
    ],
)
def test_what_a_release_holds_is_told_by_its_name(source, encoder, output, max_depth, licence):
    release = find_release(source)
    assert release is not None
    assert (release.encoder, release.output, release.max_depth, release.licence) == (
        encoder,
        output,
        max_depth,
        licence,
    )


def test_releases_are_eighteen_of_which_nine_are_told_by_their_file():
    assert len({release.repo for release in RELEASES}) == len(RELEASES) == 18
    assert len({release.file for release in RELEASES if not release.for_transformers}) == 9
    assert find_release("mine.pth") is None


@pytest.mark.parametrize("repo", ["depth-anything/Depth-Anything-V2-Small", "timm/vit_small_patch14_reg4_dinov2"])
def test_a_hub_id_is_one_as_a_path_of_windows_too(repo):
    assert find_release(PureWindowsPath(repo)) == find_release(repo) is not None
