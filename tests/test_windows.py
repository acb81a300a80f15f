"""Every command on one device without what Windows lacks: POSIX modules, signals, calls, and arrows on a terminal."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MODULES = {*("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "crypt", "spwd", "nis")}
SIGNALS = {
    *("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGCONT"),
    # SIGKILL and SIGSTOP stay, since torch and Lightning use them wherever sys.platform is Linux.
    *("pthread_sigmask", "pthread_kill", "sigwait", "sigwaitinfo", "sigpending", "alarm", "setitimer", "SIG_BLOCK"),
}
CALLS = {
    *("pread", "pwrite", "mkfifo", "mknod", "killpg", "getpgid", "setsid", "sched_getaffinity", "getloadavg", "nice"),
    *("chown", "lchown", "sendfile", "posix_fallocate", "posix_fadvise", "getresuid", "confstr", "sync"),
}
HIDE = f"""
import os, runpy, signal, sys, types
from lightning.pytorch.trainer.connectors import signal_connector
signal_connector.signal = types.SimpleNamespace(**vars(signal))  # Lightning knows Windows by its name
sys.modules.update(dict.fromkeys({sorted(MODULES)}))
for module, names in ((signal, {sorted(SIGNALS)}), (os, {sorted(CALLS)})):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.argv = sys.argv[1:]
sys.path.insert(0, {str(ROOT)!r})
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__")
"""


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    result = subprocess.run(
        [sys.executable, "-c", HIDE, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True
    )
    return result.returncode, (result.stdout + result.stderr).decode("cp1252")


def test_it_trains(small, tmp_path):
    status, output = run("train.py", *small, "trainer=cpu", "data.num_workers=0", f"hydra.run.dir={tmp_path}/run")
    assert status == 0 and "Traceback" not in output, output
    assert 0 < json.loads((tmp_path / "run/metrics.json").read_text())["metrics"]["abs_rel"] < 10
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} >= {"last.ckpt", "best.ckpt"}
    again = ["checkpoint=auto", "trainer=cpu", "data.num_workers=0", f"hydra.run.dir={tmp_path}/run"]
    status, output = run("train.py", *small, *again)
    assert status == 0 and "Resuming from" in output, output


def test_what_windows_lacks_is_asked_for():
    for file in (ROOT / "depth_lightning").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(rf"^(import|from) ({'|'.join(MODULES)})\b", text, re.MULTILINE), file
        for module, names in (("signal", SIGNALS), ("os", CALLS | {"fork", "getuid", "geteuid", "statvfs", "uname"})):
            for name in re.findall(rf"\b{module}\.({'|'.join(names)})\b", text):
                assert f"hasattr({module}, " in text, f"{file}: {module}.{name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["evaluate", "predict", "label", "export", "doctor", "show", "pack", "compare", "batch-size"]
)
def test_the_other_commands_start(command, trained, small, tmp_path):
    folder, _ = trained
    checkpoint, output = f"checkpoint={folder}/checkpoints/best.ckpt", tmp_path / "output"
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "a.png")
    rooms = [*(word for word in small if word.startswith("data.root") or "_images" in word), "data.num_workers=0"]
    arguments, expected = {
        "evaluate": ([checkpoint, "trainer=cpu", "data.num_workers=0", "report=true"], "report.html"),
        "predict": ([checkpoint, f"input={tmp_path}/a.png", f"output={output}", "device=cpu"], "1 image predicted"),
        "label": ([checkpoint, f"input={tmp_path}/a.png", f"output={output}", "device=cpu"], "lists 1 of 1 image."),
        "export": ([checkpoint, f"output={output}"], f"Written: {output}"),
        "doctor": (["data=rooms", *rooms], "doctor.html"),
        "show": (["data=rooms", *rooms], "train.png"),
        "pack": (["data=rooms", *rooms, f"output={output}"], "Packed into"),
        "compare": ([folder, folder], "abs_rel"),
        "batch-size": ([*small, "trainer=cpu"], "Without a CUDA GPU, memory_gib must say how much memory"),
    }[command]
    folder_of_run = [] if command == "compare" else [f"hydra.run.dir={tmp_path}/run"]
    status, printed = run("depth_lightning", command, *arguments, *folder_of_run)
    assert expected in printed and "Traceback" not in printed, printed
    assert status in ((0, 2) if command == "doctor" else (1,) if command == "batch-size" else (0,)), printed
