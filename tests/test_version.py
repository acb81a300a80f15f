"""The version, with the commit of a clone or of an installation from one."""

import subprocess

import pytest

import depth_lightning
from depth_lightning.version import version

NUMBER = depth_lightning.__version__


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The folder from which the package seems to be imported."""
    monkeypatch.setattr(depth_lightning, "__file__", str(tmp_path / "depth_lightning" / "__init__.py"))
    return tmp_path


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True).stdout


def test_a_clone_has_a_commit_whatever_its_tags(source):
    git(source, "init")
    (source / "a").write_text("1")
    git(source, "add", "a")
    git(source, "commit", "-m", "a")
    git(source, "tag", "-a", "v1", "-m", "a")
    commit = git(source, "rev-parse", "--short=12", "HEAD").strip()
    assert version.__wrapped__() == f"{NUMBER} ({commit})"
    (source / "a").write_text("2")
    assert version.__wrapped__() == f"{NUMBER} ({commit}-dirty)"


def test_a_clone_without_git(source, monkeypatch):
    (source / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert version.__wrapped__() == NUMBER


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            '{"url": "https://example.org/a", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}',
            "0123456789ab",
        ),
        ('{"url": "file:///a.whl", "archive_info": {}}', None),
        (None, None),
    ],
)
def test_an_installation_has_the_commit_it_was_made_from(origin, expected, source, monkeypatch):
    information = source / f"depth_lightning-{NUMBER}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: depth-lightning\nVersion: {NUMBER}\n")
    if origin:
        (information / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(source)
    assert version.__wrapped__() == (f"{NUMBER} ({expected})" if expected else NUMBER)


def test_the_record_of_another_installation_does_not_count(source, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    information = elsewhere / f"depth_lightning-{NUMBER}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: depth-lightning\nVersion: {NUMBER}\n")
    (information / "direct_url.json").write_text('{"vcs_info": {"commit_id": "0123456789abcdef"}}')
    monkeypatch.syspath_prepend(elsewhere)
    assert version.__wrapped__() == NUMBER
