"""Progress on a terminal and in a log file."""

import logging
import re

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from depth_lightning.training.display import progress


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        self.log_dict({"train/loss": 0.25, "time/images_per_s": 123.4})
        return self.layer(batch).sum()

    def validation_step(self, batch, index):
        self.log("val/abs_rel", 0.0625)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            logging.getLogger("said").warning("something is said")


def fit(bar, **options):
    loader = DataLoader(torch.ones(6, 1))
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[bar],
        logger=False,
        max_epochs=2,
        log_every_n_steps=2,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=isinstance(bar, progress.TerminalProgress),
        **options,
    )
    trainer.fit(Module(), loader, loader)


def test_lines_for_a_log_file(caplog):
    with caplog.at_level(logging.INFO):
        fit(progress.PlainProgress(every_seconds=0))
    lines = [record.getMessage() for record in caplog.records if record.name == progress.__name__]
    assert len(lines) == 2 * (6 + 1)
    assert re.fullmatch(
        r"epoch 2, step 7/12: loss 0\.2500, abs_rel 0\.0625, 123 images/s, \d:\d\d elapsed, \d:\d\d left", lines[7]
    )
    assert lines[6] == "epoch 1, step 6: val abs_rel 0.0625"
    assert all(line.isprintable() for line in lines)


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Text that is written to a terminal 100 columns wide."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    return capsys


def test_a_bar_on_a_terminal(terminal):
    import sys

    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        fit(progress.TerminalProgress())
        assert handler.stream is sys.stdout
    finally:
        logging.getLogger().removeHandler(handler)
    written = terminal.readouterr().out
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n").splitlines()
    assert any(
        re.fullmatch(r"epoch 2/2 +━+ 6/6 loss 0\.2500, abs_rel 0\.0625, 123 images/s, 0:00 left *", line)
        for line in lines
    )
    assert max(len(line) for line in lines if "━" in line) <= 100
    assert [line.rstrip() for line in lines].count("something is said") == 2  # on lines of their own
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")  # the cursor is there again


def test_an_error_gives_the_terminal_back(terminal):
    class Broken(Module):
        def training_step(self, batch, index):
            raise RuntimeError("broken")

    bar = progress.TerminalProgress()
    loader = DataLoader(torch.ones(6, 1))
    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[bar], logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Broken(), loader)
    written = terminal.readouterr().out
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0


def test_which_one(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert isinstance(progress.progress(), progress.TerminalProgress)
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert isinstance(progress.progress(), progress.PlainProgress)
    monkeypatch.delenv("JPY_PARENT_PID")
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert isinstance(progress.progress(), progress.PlainProgress)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (61.4, "1:01"), (3599.6, "1:00:00"), (7325, "2:02:05"), (float("nan"), "–")]
)
def test_clock(seconds, shown):
    assert progress.clock(seconds) == shown
