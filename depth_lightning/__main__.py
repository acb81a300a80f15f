"""The commands: `depth-lightning`. Nothing here imports torch, so that --help and --cfg answer at once."""

import difflib
import os
import re
import sys
from collections.abc import Iterable
from importlib import import_module

from depth_lightning.invocation import NAME, command_line
from depth_lightning.runs.program import print_anywhere, program
from depth_lightning.version import version

CONFIGURED = {
    "train": "fine-tune a network",
    "evaluate": "score a checkpoint or released weights",
    "calibrate": "fit a network's metres to a few labelled images",
    "predict": "depth maps, pictures and point clouds of your images",
    "label": "pseudo-labels of a teacher, to train a student on",
    "export": "weights or a graph that other programs read",
    "doctor": "read a data set and say what looks wrong with it",
    "show": "draw samples as they are on disk and as the network sees them",
    "pack": "write a data set into a few large files",
    "batch-size": "find the largest batch that trains",
    "download": "fetch a data set by its name",
}
"""Command → what it does. Each takes Hydra overrides, and its options are those of conf/<command>.yaml."""
PLAIN = {
    "compare": "tell which of several evaluations is better, and how certain that is",
    "replay": "run a recorded bad step again",
}
"""The same, for the commands with arguments of their own."""


def main() -> None:
    """Run the typed command; each command is the module of its name in `depth_lightning.commands`."""
    commands = CONFIGURED | PLAIN
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    print_anywhere()
    if name in ("-h", "--help"):
        print(f"{command_line('<command>')} …\n")
        print(*(f"  {command:<11} {what}" for command, what in commands.items()), sep="\n")
        print("\nEvery command has --help.")
    elif name == "--version":
        print(NAME, version())
    elif name in ("-sc", "--shell-completion"):
        _complete(commands)
    elif name in CONFIGURED:
        if name == "download" and len(sys.argv) > 2 and re.fullmatch(r"\w+", sys.argv[2]):
            sys.argv[2] = f"download={sys.argv[2]}"  # a set's name, typed as a word
        program(name.replace("-", "_"), typed=name)
    elif name in PLAIN:
        sys.exit(import_module(f"depth_lightning.commands.{name}").main(sys.argv[2:]))
    else:
        nearest = difflib.get_close_matches(name, commands, n=1)
        hint = f"Did you mean {nearest[0]}?" if nearest else f"Commands: {', '.join(commands)}."
        sys.exit(f"There is no command {name!r}. {hint}")


def _complete(commands: Iterable[str]) -> None:
    """Answer the shell: complete the command's name, or let Hydra complete the options of its configuration.

    Hydra's script for the shell calls the program without the command, and Hydra takes all words for options.
    """
    line = re.fullmatch(r"(\s*\S+\s+)(\S*)(.*)", os.environ.get("COMP_LINE", ""))
    if line and not line[3]:
        print(*commands)
    elif line and line[2] in CONFIGURED:
        os.environ["COMP_LINE"] = line[1] + line[3].lstrip()
        program(line[2].replace("-", "_"))
    elif not line:  # the script is asked for
        program("train")


if __name__ == "__main__":
    main()
