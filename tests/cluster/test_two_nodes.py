"""DDP over torchrun on two nodes, one of which is taken away and comes back."""

import os
import subprocess
import sys
import time

import pytest
import torch
from two_nodes import ROOT, kill, two_nodes

SMALL = (
    *("experiment=rooms", "data.train_images=16", "data.val_images=5", "data.size=42", "data.eval_batch_size=2"),
    *("trainer.max_epochs=3", "trainer.log_every_n_steps=1", "callbacks.panels.images=1", "baseline=false"),
    *("callbacks.checkpoints.every_n_steps=1", "loss.across_devices=true", "self_check=false"),
)


def weights(folder, name="last.ckpt"):
    checkpoint = torch.load(folder / "checkpoints" / name, weights_only=True)
    return checkpoint["global_step"], checkpoint["state_dict"]


def largest_difference(folder, other, name="last.ckpt"):
    (step, state), (other_step, other_state) = weights(folder, name), weights(other, name)
    assert step == other_step and state.keys() == other_state.keys()
    return max((state[key] - other_state[key]).abs().max().item() for key in state)


def alone(folder, rooms):
    """The same global batches in one process that nobody disturbs."""
    given = [*SMALL, f"data.root={rooms}", "trainer=cpu", "data.batch_size=8", f"hydra.run.dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as on the nodes: sums in the same order
    done = subprocess.run(
        [sys.executable, "train.py", *given], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp_cpu"])
def test_a_node_is_killed_and_joins_again(trainer, tmp_path):
    alone(tmp_path / "alone", tmp_path / "rooms")
    given = [*SMALL, f"data.root={tmp_path}/rooms", f"trainer={trainer}", "trainer.devices=1", "trainer.num_nodes=2"]
    given += ["data.batch_size=4", "checkpoint=auto", f"hydra.run.dir={tmp_path}/two"]
    outputs = [tmp_path / "node0.txt", tmp_path / "node1.txt"]
    with two_nodes() as nodes:
        agents = [node.torchrun(output, "train.py", *given) for node, output in zip(nodes, outputs, strict=True)]
        try:
            deadline = time.monotonic() + 600
            while not (tmp_path / "two/checkpoints/previous.ckpt").exists():
                assert time.monotonic() < deadline and agents[0].poll() is None, outputs[0].read_text()
                time.sleep(0.1)
            kill(agents[1])
            stopped_at = weights(tmp_path / "two")[0]
            time.sleep(5)
            agents[1] = nodes[1].torchrun(outputs[1], "train.py", *given)
            for agent, output in zip(agents, outputs, strict=True):
                assert agent.wait(timeout=900) == 0, output.read_text()
        finally:
            for agent in agents:
                kill(agent)
    print("namespaces" if nodes[0].prefix else "one network", "killed after step", stopped_at)
    assert stopped_at < 6
    assert "Resuming from" in outputs[0].read_text() + outputs[1].read_text()
    assert largest_difference(tmp_path / "two", tmp_path / "alone") < 2e-5
    said = [output.read_text().count("Written: ") for output in outputs]
    assert sorted(bool(count) for count in said) == [False, True]  # one process reports
