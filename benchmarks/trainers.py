"""Three trainers with one network, the same frames and the same time: images per second, memory, AbsRel.

Ours as it is typed, the trainer of the package depth-estimation (0.1.3 was measured), and transformers' network in a
plain loop. All start from random weights at one rate, with a cosine schedule whose length fits the time that they get;
all else is each trainer's own. Every one's network is scored by `evaluate` on the same frames:

    pip install --no-deps depth-estimation && python benchmarks/trainers.py --minutes 4
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from peers import TransformersDepth
from runs import composed, measured
from timing import in_fresh_process, parser, report
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from depth_lightning.commands.train import train
from depth_lightning.data import RenderedRooms
from depth_lightning.data.files import read_image
from depth_lightning.inference import load
from depth_lightning.losses import SiLogLoss
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.reporting.tables import interval, number
from depth_lightning.training.optimizer import adamw

ENCODER, HEIGHT, WIDTH, BATCH, LR = "vits", 168, 224, 8, 1e-4
HEADER = {"trainer": False, "images/s": True, "peak GB": True, "epochs": True, "s": True, "AbsRel": True, "95 %": True}


def main() -> None:
    """Measure, print and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=4, help="of training, for each trainer")
    arguments.add_argument("--images", type=int, default=200)
    arguments.add_argument("--val-images", type=int, default=50)
    chosen = arguments.parse_args()
    rows, values = [], dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for split, count in {"train": chosen.images, "val": chosen.val_images}.items():
            write_frames(root / split, split, count)
        for name, trainer in TRAINERS.items():
            seconds = [in_fresh_process(trainer, root, epochs)[0] for epochs in (1, 2)]
            epoch = seconds[1] - seconds[0]
            epochs = max(1, round((60 * chosen.minutes - seconds[0]) / epoch) + 1)
            took, peak = in_fresh_process(trainer, root, epochs)
            typed = (f"predictions={root}/predictions", *data(root), "panels=0", "breakdowns=false")
            score = measured(root / f"score_{len(rows)}", "evaluate", *typed)
            values[name] = {"images_per_s": chosen.images / epoch, "gigabytes": peak, "epochs": epochs, "seconds": took}
            values[name] |= {"abs_rel": score["abs_rel"], "interval": score["interval"]}
            speed = [f"{chosen.images / epoch:.2f}", f"{peak:.2f}", str(epochs), f"{took:.0f}"]
            rows.append([name, *speed, number(score["abs_rel"]), interval(score["interval"])])
            report("trainers", HEADER, rows, values)


def write_frames(folder: Path, split: str, count: int) -> None:
    """Rendered rooms as photos and depth maps in metres."""
    for part in ("rgb", "depth"):
        (folder / part).mkdir(parents=True)
    rooms = RenderedRooms(None, split, count, height=HEIGHT, width=WIDTH)
    for index in range(count):
        sample = rooms[index]
        cv2.imwrite(str(folder / f"rgb/{index:04d}.png"), sample.image[..., ::-1])
        np.save(folder / f"depth/{index:04d}.npy", np.where(sample.mask, sample.target, 0))


def data(root: Path) -> list[str]:
    """What is typed for the frames."""
    return ["data=pairs", f"data.root={root}", "data.image='{split}/rgb/*.png'", "data.depth='{split}/depth/*.npy'"]


def ours(root: Path, epochs: int) -> float:
    """Seconds of `train`, which validates every epoch."""
    run_dir = tempfile.mkdtemp(dir=root)
    typed = [*data(root), f"model={ENCODER}", "model.weights=null", f"run_dir={run_dir}"]
    typed += [f"data.size={HEIGHT}", "data.crop=square", f"data.batch_size={BATCH}", "data.num_workers=0"]
    typed += [f"trainer.max_epochs={epochs}", "trainer=cpu", "scheduler=cosine"]
    typed += [f"optimizer.lr={LR}", "optimizer.head_lr_scale=1", "self_check=false", "trainer.gradient_clip_val=1.0"]
    typed += ["model.max_depth=10", "protocol.max_depth=10", "report=false"]
    cfg = composed(*typed)
    started = time.perf_counter()
    train(cfg)
    took = time.perf_counter() - started
    write_predictions(root, load(f"{run_dir}/checkpoints/best.ckpt", device="cpu").predict)
    return took


def depth_estimation(root: Path, epochs: int) -> float:
    """Seconds of the package's trainer, with its own losses and transforms, validating every epoch."""
    from depth_estimation.data.folder import FolderDataset
    from depth_estimation.data.transforms import get_train_transforms, get_val_transforms
    from depth_estimation.models.depth_anything_v2.configuration_depth_anything_v2 import DepthAnythingV2Config
    from depth_estimation.models.depth_anything_v2.modeling_depth_anything_v2 import DepthAnythingV2Model
    from depth_estimation.trainer import DepthTrainer
    from depth_estimation.training_args import DepthTrainingArguments

    torch.manual_seed(0)
    model = DepthAnythingV2Model(DepthAnythingV2Config(backbone=ENCODER))
    read = partial(FolderDataset, max_depth=10.0)
    arguments = DepthTrainingArguments(
        tempfile.mkdtemp(dir=root),
        num_epochs=epochs,
        learning_rate=LR,
        backbone_lr_scale=1.0,
        batch_size=BATCH,
        dataloader_num_workers=0,
    )
    splits = {
        split: read(root / split / "rgb", root / split / "depth", transform=transform(HEIGHT))
        for split, transform in {"train": get_train_transforms, "val": get_val_transforms}.items()
    }
    started = time.perf_counter()
    DepthTrainer(model, arguments, splits["train"], splits["val"]).train()
    took = time.perf_counter() - started
    best = Path(arguments.output_dir) / "best_model/model.pt"
    model.load_state_dict(torch.load(best, weights_only=True))
    write_predictions(root, partial(predict, model.eval()))
    return took


class Frames(Dataset[tuple[Tensor, Tensor]]):
    """Frames and their depth; to train on, mirrored at random, and cut to a square at random."""

    def __init__(self, folder: Path) -> None:
        self.names = sorted(path.stem for path in (folder / "rgb").iterdir())
        self.folder = folder

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name = self.names[index]
        image = torch.from_numpy(read_image(self.folder / f"rgb/{name}.png")).permute(2, 0, 1)
        depth = torch.from_numpy(np.load(self.folder / f"depth/{name}.npy"))
        left = int(torch.randint(WIDTH - HEIGHT + 1, ()))
        image, depth = image[..., left : left + HEIGHT], depth[..., left : left + HEIGHT]
        return (image.flip(-1), depth.flip(-1)) if torch.rand(()) < 0.5 else (image, depth)


def transformers(root: Path, epochs: int) -> float:
    """Seconds of a plain loop over transformers' network, which validates every epoch."""
    torch.manual_seed(0)
    model = TransformersDepth(DepthAnythingV2(ENCODER, output="metric", max_depth=10.0)).train()
    optimizer, loss = adamw({"encoder": list(model.parameters())}, lr=LR), SiLogLoss()
    started = time.perf_counter()
    loader = DataLoader(Frames(root / "train"), BATCH, shuffle=True, drop_last=True)
    validation = DataLoader(Frames(root / "val"), BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    for _ in range(epochs):
        for image, depth in loader:
            optimizer.zero_grad()
            loss(model(normalize(image)), depth, depth > 0).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            losses = [loss(model(normalize(image)), depth, depth > 0) for image, depth in validation]
        print(f"validation: loss {torch.stack(losses).mean():.4f}")
    took = time.perf_counter() - started
    write_predictions(root, partial(predict, model.eval()))
    return took


TRAINERS = {"ours": ours, "depth-estimation": depth_estimation, "transformers, plain loop": transformers}


def predict(model: nn.Module, path: Path) -> np.ndarray:
    """Depth in metres of a photo at its own size, which is the one that the networks were trained at."""
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        depth: np.ndarray = model(normalize(image))[0].numpy()
    return depth


def write_predictions(root: Path, of_photo: Any) -> None:
    """Of every validation image, to be scored."""
    for path in sorted((root / "val/rgb").iterdir()):
        (root / "predictions").mkdir(exist_ok=True)
        np.save(root / f"predictions/{path.stem}.npy", of_photo(path))


if __name__ == "__main__":
    main()
