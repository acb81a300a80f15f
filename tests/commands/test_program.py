"""The program: its list of commands, its version, the shell's completion, and how hints say what to type."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest

from depth_lightning import __main__ as program
from depth_lightning.invocation import command_line
from depth_lightning.runs.program import EXTRAS
from depth_lightning.version import version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """run(*words): what the console script prints, or its error."""

    def run_main(*words):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/depth-lightning", *words])
        try:
            program.main()
        except SystemExit as end:
            return end.code
        return capsys.readouterr().out

    return run_main


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_what_there_is(words, run):
    lines = run(*words).splitlines()
    assert lines[0] == "depth-lightning <command> …"
    assert lines[2] == "  train       fine-tune a network"
    modules = {file.stem.replace("_", "-") for file in (ROOT / "depth_lightning" / "commands").glob("[!_]*.py")}
    assert {line.split()[0] for line in lines[2:-2]} == modules


def test_the_version(run):
    assert run("--version") == f"depth-lightning {version()}\n"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("trian", "There is no command 'trian'. Did you mean train?"),
        ("batch_size", "There is no command 'batch_size'. Did you mean batch-size?"),
        (
            "experiment=rooms",
            "There is no command 'experiment=rooms'. Commands: train, evaluate, calibrate, predict, label, export, "
            "doctor, show, pack, batch-size, download, compare, replay.",
        ),
    ],
)
def test_an_unknown_command(typed, message, run):
    assert run(typed) == message


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("/home/a/bin/depth-lightning", "depth-lightning train"),
        ("C:/Scripts/depth-lightning.exe", "depth-lightning train"),
        ("train.py", "python -m depth_lightning train"),
        ("/home/a/depth_lightning/__main__.py", "python -m depth_lightning train"),
    ],
)
def test_hints_name_the_program_as_it_was_started(started, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [started])
    assert command_line("train") == expected


@pytest.mark.parametrize("option", EXTRAS)
def test_a_missing_extra_is_named_before_anything_is_imported(option, run, monkeypatch):
    extra, module = EXTRAS[option]
    monkeypatch.setitem(sys.modules, module, None)
    message = f"{option} needs an extra that is not installed: pip install 'depth-lightning[{extra}]'"
    assert run("train", "-m", option) == message


def test_overrides_may_stand_on_both_sides_of_m(run, monkeypatch):
    calls = []
    monkeypatch.setattr(hydra, "main", lambda **_: lambda work: lambda: calls.append(sys.argv[1:]))
    run("train", "seed=1,2", "-m", "trainer=cpu")
    assert calls == [["-m", "seed=1,2", "trainer=cpu"]]


def complete(line, cwd):
    """What the shell is offered, by the call that Hydra's script for it makes."""
    code = "import sys; sys.argv[0] = 'depth-lightning'; from depth_lightning.__main__ import main; main()"
    environment = {**os.environ, "COMP_LINE": line, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code, "-sc", "query=bash"]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_shell_completes_commands(tmp_path):
    assert complete("depth-lightning tr", tmp_path) == list(program.CONFIGURED | program.PLAIN)
    assert complete("depth-lightning compare a", tmp_path) == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("depth-lightning train trainer=ddp_", ["trainer=ddp_bf16", "trainer=ddp_cpu", "trainer=ddp_fp16"]),
        ("depth-lightning train experiment=rooms optimizer.head", ["optimizer.head_lr_scale="]),
        ("depth-lightning batch-size max_", ["max_batch_size="]),
    ],
)
def test_the_shell_completes_options(line, offered, tmp_path):
    assert complete(line, tmp_path) == offered
