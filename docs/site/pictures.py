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
SHORT = ["data.train_images=400", "trainer.max_epochs=3", "report=false"]
RANKED = {"silog": [], "l1": ["loss=l1"], "no_flip": ["augmentation=none"]}


def main(work: Path) -> None:
    """Make every picture, from runs in `work`; runs that are there already are used again."""
    rooms, fewer_rooms = f"data.root={work / 'data'}", f"data.root={work / 'fewer'}"
    run = work / "rooms"
    _train(run, rooms)
    best = f"checkpoint={run / 'checkpoints/best.ckpt'}"
    _command("evaluate", best, "panels=2", f"hydra.run.dir={work / 'score'}")
    _save(work / "score" / "panels.png", "../rooms.png")
    _command(
        "show", "data=rooms", rooms, "augmentation=article", "images=3", "draws=3", f"hydra.run.dir={work / 'show'}"
    )
    _save(work / "show" / "train.png", "show.png")
    _save(max((run / "worst").glob("*.png")), "worst.png")

    for name, overrides in RANKED.items():
        _train(work / "short" / name, fewer_rooms, *SHORT, *overrides)
    folders = [str(work / "short" / name) for name in RANKED]
    _command("compare", *folders, "--output", str(work / "ranking"))
    _save(next((work / "ranking").glob("*.png")), "ranking.png")
    _screenshot(run / "report.html", work / "report.png", 1200, 1500)
    _save(work / "report.png", "report.png")


def _train(folder: Path, *overrides: str) -> None:
    if not (folder / "metrics.json").is_file():
        _command("train", "experiment=rooms", f"hydra.run.dir={folder}", "checkpoint=auto", *overrides)


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "depth_lightning", *words], check=True)


def _screenshot(page: Path, picture: Path, width: int, height: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise FileNotFoundError("The report's picture needs Chromium: apt-get install chromium")
    size = [f"--window-size={width},{height}", "--hide-scrollbars", "--virtual-time-budget=8000"]
    command = [chromium, "--headless=new", "--no-sandbox", *size, f"--screenshot={picture}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)


def _save(source: Path, name: str) -> None:
    """In 256 colours, a third of the size."""
    target = DOCS / "pictures" / name
    target.parent.mkdir(exist_ok=True)
    Image.open(source).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT).save(target, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
