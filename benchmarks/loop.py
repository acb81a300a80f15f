"""What a run costs beside its arithmetic: `experiment=rooms` as trained, against the same in plain PyTorch.

The plain loop has the same data, network, loss, optimizer and schedule, and validates with AbsRel; no Lightning, no
callbacks, no pictures, no checkpoints. An epoch is timed with its validation, the first one left out.
"""

import tempfile
import time
from typing import Any, cast

import lightning
import torch
from lightning import Callback, Trainer
from omegaconf import DictConfig
from runs import composed
from timing import in_fresh_process, parser, report

from depth_lightning.commands.train import train
from depth_lightning.data.sampling import TrainSampler
from depth_lightning.metrics.errors import abs_rel
from depth_lightning.models import normalize
from depth_lightning.runs import objects
from depth_lightning.runs.host_memory import keep_freed_memory

PICTURES = ("~callbacks.panels", "~callbacks.worst", "~callbacks.depth_histogram")
OTHERS = ("checkpoints", "watch", "throughput", "progress", "learning_rates", "step_seed")
LOOPS: dict[str, tuple[str, ...]] = {
    "plain PyTorch": (),
    "train.py": (),
    "train.py without pictures": PICTURES,
    "train.py without callbacks": (*PICTURES, *(f"~callbacks.{name}" for name in OTHERS)),
}
"""Loop → what is typed for it."""
HEADER = {"loop": False, "s an epoch": True, "images/s": True, "of plain PyTorch": True}


def main() -> None:
    """Measure, print and save."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--epochs", type=int, default=3, help="including the first, which is not timed")
    arguments.add_argument("--images", type=int, default=800, help="to train on; a tenth of it validate")
    chosen = arguments.parse_args()
    seconds = dict.fromkeys(LOOPS, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(chosen.repeats):
            for name in LOOPS:
                run = f"{folder}/{name}_{turn}"
                own, _ = in_fresh_process(epoch_seconds, name, folder, run, chosen.images, chosen.epochs)
                seconds[name] = min(seconds[name], own)
    plain = seconds["plain PyTorch"]
    rows = [[name, f"{own:.1f}", f"{chosen.images / own:.1f}", f"{plain / own:.3f}"] for name, own in seconds.items()]
    report("loop", HEADER, rows, {"epoch_seconds": seconds, "images": chosen.images})


def epoch_seconds(name: str, root: str, run_dir: str, images: int, epochs: int) -> float:
    """Of an epoch after the first."""
    typed = ["experiment=rooms", f"data.root={root}", f"data.train_images={images}", f"data.val_images={images // 10}"]
    typed += [f"run_dir={run_dir}", f"trainer.max_epochs={epochs}", "report=false", "baseline=false", *LOOPS[name]]
    typed += ["+callbacks.epochs._target_=loop.Epochs"] if name != "plain PyTorch" else []
    cfg = composed(*typed)
    keep_freed_memory()
    if name == "plain PyTorch":
        ends = plain_loop(cfg)
    else:
        train(cfg)
        from loop import Epochs  # the one that Hydra has imported, not this script's

        ends = Epochs.ends
    return (ends[-1] - ends[0]) / (len(ends) - 1)


class Epochs(Callback):
    """Notes when epochs end, with their validation."""

    ends: list[float] = []  # noqa: RUF012 — read from the class, since Hydra makes the object

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Read the clock."""
        self.ends.append(time.perf_counter())


def plain_loop(cfg: DictConfig) -> list[float]:
    """When epochs end."""
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    data = objects.build_data(cfg)
    network = objects.build_network(cfg.model)
    data.setup("fit")
    module = objects.build_module(cfg, network)
    objective, optimizer = module.objective, module.optimizer(network.parameter_groups())
    assert objective is not None and objective.metres is not None and data.colour is None
    loader = data.train_dataloader()
    total, ends = cfg.trainer.max_epochs * len(loader), list[float]()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: module.schedule(at, total))
    for epoch in range(cfg.trainer.max_epochs):
        cast(TrainSampler, loader.sampler).set_epoch(epoch)
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            loss = objective.metres(network(normalize(batch.image)), batch.target, batch.mask)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), cfg.trainer.gradient_clip_val)
            optimizer.step()
            schedule.step()
        network.eval()
        errors = []
        with torch.inference_mode():
            for batch in data.val_dataloader():
                predicted = module.metrics.protocol.upsampled(network(normalize(batch.image)), *batch.target.shape[-2:])
                valid = batch.mask & (batch.target <= cfg.protocol.max_depth)
                errors.append(abs_rel(predicted, batch.target, valid))
        print(f"epoch {epoch + 1}: AbsRel {torch.cat(errors).nanmean():.4f}")
        ends.append(time.perf_counter())
    return ends


if __name__ == "__main__":
    main()
