"""Which checkpoint a run goes on from, and in which folder."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from depth_lightning.commands.train import kept, train
from depth_lightning.interrupts import is_interrupt
from depth_lightning.runs.resume import changes, checkpoint_to_resume, claim_folder
from depth_lightning.training import DepthModule

ROOT = Path(__file__).resolve().parents[2]


def save(path, step):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": step, "config": {"lr": 1}, "state_dict": {}}, path)
    return path


def test_auto_takes_the_newest_whole_one_and_names_the_others(compose_config, tmp_path, caplog):
    cfg = compose_config("train", ["checkpoint=auto"], tmp_path)
    assert checkpoint_to_resume(cfg) is None
    previous = save(tmp_path / "checkpoints" / "previous.ckpt", 4)
    best = save(tmp_path / "checkpoints" / "best.ckpt", 2)
    last = save(tmp_path / "checkpoints" / "last.ckpt", 6)
    assert checkpoint_to_resume(cfg) == last
    last.write_bytes(last.read_bytes()[:200])
    assert checkpoint_to_resume(cfg) == previous
    assert f"Passed over: {last} is torn" in caplog.text
    for path in (previous, best):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no intact checkpoint"):
        checkpoint_to_resume(cfg)


def test_a_torn_file_that_is_asked_for_is_named_with_one_that_is_whole(compose_config, tmp_path):
    previous = save(tmp_path / "previous.ckpt", 4)
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"checkpoint=.*last\.ckpt is empty\. {previous} is intact"):
        checkpoint_to_resume(compose_config("train", [f"checkpoint={tmp_path}/last.ckpt"], tmp_path))


def test_a_folder_is_gone_on_with_under_the_same_configuration(tmp_path):
    config = {"optimizer": {"lr": 1}, "trainer": {"devices": 1}, "checkpoint": None}
    claim_folder(tmp_path, config, None, auto=False).release()
    last = save(tmp_path / "checkpoints" / "last.ckpt", 6)
    with pytest.raises(ValueError, match=r"already holds a run.*checkpoint=auto"):
        claim_folder(tmp_path, config, None, auto=False)
    claim_folder(tmp_path, {**config, "trainer": {"devices": 2}, "checkpoint": "auto"}, last, auto=True).release()
    with pytest.raises(ValueError, match=r"another configuration: optimizer\.lr: 1 → 2\. .*another hydra\.run\.dir"):
        claim_folder(tmp_path, {**config, "optimizer": {"lr": 2}}, last, auto=True)


@pytest.mark.parametrize("auto", [False, True])
def test_a_folder_in_which_nothing_was_saved_is_used_again(auto, tmp_path):
    """After Ctrl-C before the first save, or an error before the first step."""
    (tmp_path / "train.log").write_text("of the first attempt")
    claim_folder(tmp_path, {"optimizer": {"lr": 1}}, None, auto).release()
    (tmp_path / "metrics.csv").write_text("step,train/loss\n9,0.5\n")
    claim_folder(tmp_path, {"optimizer": {"lr": 2}}, None, auto).release()
    assert OmegaConf.load(tmp_path / "config.yaml") == {"optimizer": {"lr": 2}}
    assert (tmp_path / "train.log").read_text() == "of the first attempt"


@pytest.mark.parametrize("name", ["checkpoints/best.ckpt", "checkpoints/a-users-own.ckpt", "metrics.json"])
def test_what_a_run_has_saved_is_never_overwritten(name, tmp_path):
    claim_folder(tmp_path, {"optimizer": {"lr": 1}}, None, auto=False).release()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="already holds a run"):
        claim_folder(tmp_path, {"optimizer": {"lr": 1}}, None, auto=False)
    with pytest.raises(ValueError) as refused:
        claim_folder(tmp_path, {"optimizer": {"lr": 2}}, None, auto=True)
    assert str(refused.value) == (
        f"{tmp_path} holds a run with another configuration: optimizer.lr: 1 → 2. To continue with the typed "
        "configuration, choose another hydra.run.dir"
    )


def test_a_change_is_listed_once(compose_config, tmp_path):
    """data.dataset.count.train is ${data.train_images}."""
    first, second = (
        OmegaConf.to_container(compose_config("train", ["data=rooms", *more], tmp_path), resolve=True)
        for more in ([], ["data.train_images=12"])
    )
    claim_folder(tmp_path, first, None, auto=False).release()
    last = save(tmp_path / "checkpoints" / "last.ckpt", 6)
    with pytest.raises(ValueError) as refused:
        claim_folder(tmp_path, second, last, auto=True)
    assert str(refused.value) == (
        f"{tmp_path} holds a run with another configuration: data.train_images: 2000 → 12. To continue with the typed "
        f"configuration, choose another hydra.run.dir and checkpoint={last}"
    )


def test_a_run_that_goes_on_without_its_data_set_says_which_it_had(trained, compose_config, small, tmp_path):
    folder, _ = trained
    root = small[1].partition("=")[2]
    command = [f"checkpoint={folder}/checkpoints/last.ckpt", "trainer.max_epochs=4", f"data.root={tmp_path}/none"]
    with pytest.raises(FileNotFoundError, match="No NYU Depth V2 at ") as refused:
        train(compose_config("train", command, tmp_path / "run"))
    assert str(refused.value).endswith(
        f" The checkpoint was trained on RenderedRooms {root}. To continue, type the options of its run as well, "
        "data=… among them."
    )


def test_going_on_from_an_earlier_checkpoint_does_not_lose_the_later(tmp_path):
    claim_folder(tmp_path, {}, None, auto=False).release()
    earlier = save(tmp_path / "checkpoints" / "best.ckpt", 2)
    later = save(tmp_path / "checkpoints" / "last.ckpt", 6)
    with pytest.raises(ValueError, match=r"holds a newer checkpoint than .*best\.ckpt: last\.ckpt is of step 6"):
        claim_folder(tmp_path, {}, earlier, auto=False)
    claim_folder(tmp_path, {}, later, auto=False).release()


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    lock = claim_folder(tmp_path, {}, None, auto=True)
    code = (
        "from pathlib import Path\nfrom depth_lightning.runs.resume import claim_folder\n"
        f"claim = lambda: claim_folder(Path({str(tmp_path)!r}), {{}}, None, auto=True)\n"
        "try:\n    claim()\nexcept ValueError as error:\n    print(error, flush=True)\n"
        "input()\nclaim()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        assert "another process is training in this folder" in other.stdout.readline()
        lock.release()
        other.stdin.write("\n")
    assert other.returncode == 0


def test_changes_that_decide_nothing_are_left_out():
    known = {"data": {"root": "/a", "dataset": {"root": "/a"}, "size": 42}, "trainer": {"devices": 1}, "loss": [1, 2]}
    moved = {"data": {"root": "/b", "dataset": {"root": "/b"}, "size": 42}, "trainer": {"devices": 8}, "loss": [1, 2]}
    assert list(changes(known, moved)) == []
    other = {**moved, "loss": [1, 3], "model": {"encoder": "vits"}}
    assert list(changes(known, other)) == ["loss: [1, 2] → [1, 3]", "model: None → {'encoder': 'vits'}"]


def test_callbacks_say_what_of_them_decides(compose_config):
    """Every argument of every callback of conf/, changed, and every callback taken away."""
    callbacks = compose_config("train", ["callbacks=[ema,early_stopping]"]).callbacks
    callbacks = OmegaConf.to_container(callbacks, resolve=False)
    decisive = {
        "checkpoints": ["monitor", "mode"],
        "step_seed": ["seed"],
        "watch": ["jump_factor"],
        "early_stopping": ["monitor", "mode", "patience"],
        "ema": ["decay"],
    }
    for name, node in callbacks.items():
        expected = decisive.get(name, [])
        for argument in node.keys() - {"_target_"}:
            changed = list(
                changes({"callbacks": callbacks}, {"callbacks": {**callbacks, name: {**node, argument: "other"}}})
            )
            assert [change.partition(":")[0] for change in changed] == [f"callbacks.{name}.{argument}"] * (
                argument in expected
            )
        without = {other: callbacks[other] for other in callbacks if other != name}
        assert bool(list(changes({"callbacks": callbacks}, {"callbacks": without}))) == bool(expected), name
        assert bool(list(changes({"callbacks": without}, {"callbacks": callbacks}))) == bool(expected), name


class Quiet(Callback):
    """A user's own, which says that it decides nothing."""

    decisive = ()


class Silent(Callback):
    """A user's own, which does not say."""


def test_a_callback_of_ones_own_decides_unless_it_says_otherwise():
    quiet, silent = ({"_target_": f"{__name__}.{kind.__name__}", "n": 1} for kind in (Quiet, Silent))
    for before, after, change in (
        (quiet, {**quiet, "n": 2}, []),
        (None, quiet, []),
        (silent, {**silent, "n": 2}, ["callbacks.own.n: 1 → 2"]),
        (None, silent, [f"callbacks.own: None → {silent}"]),
    ):
        assert list(changes({"callbacks": {"own": before}}, {"callbacks": {"own": after}})) == change


def test_a_folder_has_no_module_imported_that_was_not_typed(tmp_path, monkeypatch):
    (tmp_path / "a_strangers.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "a_strangers.Callback"}
    assert list(changes({"callbacks": {"own": node}}, {"callbacks": {}})) == [f"callbacks.own: {node} → None"]


def test_a_finished_run_is_scored_again_and_not_trained(trained, small, compose_config, caplog):
    folder, best = trained
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    caplog.set_level("INFO")
    assert train(compose_config("train", [*small, "checkpoint=auto"], folder)) == best
    assert "This run is complete: nothing is left to train." in caplog.text
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before


def _tool():
    spec = importlib.util.spec_from_file_location("kill_and_resume", ROOT / "tests" / "kill_and_resume.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.slow
@pytest.mark.parametrize("data", [["--kills", "3"], ["--kills", "2", "--shards", "data.num_workers=2"]])
def test_killed_processes_go_on_to_the_same_bits(data, monkeypatch, tmp_path, capsys):
    if "--shards" in data:
        pytest.importorskip("moto.server", reason="needs moto")
    monkeypatch.setattr(sys, "argv", ["kill_and_resume.py", "--folder", str(tmp_path), *data])
    assert _tool().main() == 0
    assert ("a shard on its way" in capsys.readouterr().out) == ("--shards" in data)


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes(tmp_path):
    """One process with batches of four, then two with two each, from the middle of an epoch."""
    tool = _tool()
    loss = "loss=l1"  # an average over images, whose gradient is the same in any shares
    rooms = tool.rooms(tmp_path / "rooms")
    alone = [*rooms, loss, "data.batch_size=4", "trainer.accumulate_grad_batches=1"]
    shared = [*rooms, loss, "trainer=ddp_cpu", "data.batch_size=2", "trainer.accumulate_grad_batches=1"]
    tool.finish(tmp_path / "expected", alone)
    process = tool.start(tmp_path / "run", alone)
    while not (tmp_path / "run" / "checkpoints" / "previous.ckpt").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait() == 75
    step = tool.step(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert 0 < step < 18
    tool.finish(tmp_path / "run", shared)
    assert "Resuming from" in (tmp_path / "run.txt").read_text()
    states = [torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("run", "expected")]
    assert states[0]["global_step"] == states[1]["global_step"] == 18
    for key, weight in states[1]["state_dict"].items():  # Adam turns the last bit of a small gradient into a whole step
        torch.testing.assert_close(states[0]["state_dict"][key], weight, rtol=0, atol=5e-3)
    scores = [state["callbacks"]["Checkpoints"]["best_score"] for state in states]
    assert scores[0] == pytest.approx(scores[1], rel=0.01)


@pytest.mark.parametrize(
    ("epoch", "message"),
    [
        (0, "Nothing was saved yet. To start again, repeat the command."),
        (1, "Step 3 is saved. To resume, repeat the command with checkpoint=auto hydra.run.dir="),
    ],
)
def test_ctrl_c_says_what_is_left(epoch, message, compose_config, small, tmp_path, monkeypatch):
    step = DepthModule.training_step

    def interrupted(module, *arguments):
        if module.current_epoch == epoch:
            raise KeyboardInterrupt
        return step(module, *arguments)

    monkeypatch.setattr(DepthModule, "training_step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    cfg = compose_config("train", [*small, "self_check=false"], tmp_path)
    with pytest.raises(SystemExit) as end:
        train(cfg)
    signal.signal(signal.SIGINT, handler)  # Lightning ignores a second one
    assert is_interrupt(end.value)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"mode": RunMode.RUN}))
    assert kept(cfg).startswith(message)
