"""Makes the pictures of the site: `python docs/site/pictures.py [folder for the runs]`, half an hour on two cores.

Tiny networks are trained on rendered rooms. Nothing is downloaded. The report is drawn by Chromium.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parents[1]
PICTURES = DOCS / "pictures"
SHORT = ["data.root=fewer", "data.train_images=400", "trainer.max_epochs=3", "report=false"]
RANKED = {"silog": [], "l1": ["loss=l1"], "no_flip": ["augmentation=none"]}
BEST = "checkpoint=rooms/checkpoints/best.ckpt"


def main(work: Path) -> None:
    """Make every picture, from runs in `work`; runs that are there already are used again.

    Paths are relative to it, so that no picture shows a path of this machine.
    """

    def command(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "depth_lightning", *words], cwd=work, check=True)

    def train(folder: str, *overrides: str) -> None:
        if not (work / folder / "metrics.json").is_file():
            command("train", "experiment=rooms", f"hydra.run.dir={folder}", "checkpoint=auto", *overrides)

    train("rooms", "data.root=data")
    command("evaluate", BEST, "data=rooms", "data.root=data", "data.val_images=11", "panels=2", "hydra.run.dir=pair")
    _save(work / "pair/panels.png", DOCS / "rooms.png")
    command("show", "data=rooms", "data.root=data", "augmentation=article", "images=2", "draws=2", "hydra.run.dir=show")
    _save(work / "show/train.png", PICTURES / "show.png")
    command("evaluate", BEST, "data=rooms", "data.root=data", "baseline=true", "report=true", "hydra.run.dir=score")
    _screenshot(work / "score/report.html", work / "report.png", width=1200, height=1050)
    _save(work / "report.png", PICTURES / "report.png")

    for name, overrides in RANKED.items():
        train(f"short/{name}", *SHORT, *overrides)
    command("compare", *(f"short/{name}" for name in RANKED), "--output", "ranking")
    _save(work / "ranking/ranking.png", PICTURES / "ranking.png")


def _screenshot(page: Path, picture: Path, width: int, height: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise FileNotFoundError("The report's picture needs Chromium: apt-get install chromium")
    size = [f"--window-size={width},{height}", "--hide-scrollbars", "--virtual-time-budget=8000"]
    command = [chromium, "--headless=new", "--no-sandbox", *size, f"--screenshot={picture}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)


def _save(source: Path, target: Path) -> None:
    """In 256 colours, half the size."""
    target.parent.mkdir(exist_ok=True)
    picture = Image.open(source).convert("RGB")
    palette = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
