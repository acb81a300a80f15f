"""Pages of the site that are generated: the options from the comments in conf/, the API from docstrings.

MkDocs calls `on_files`. Nothing here imports the package or torch, so that the site builds without them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sample", "data", "models", "losses", "metrics", "training", "inference")
ORDER = (
    "model",
    "encoder",
    "data",
    "augmentation",
    "loss",
    "protocol",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
)
"""The groups of conf/ that most people need; the others follow by name."""


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages; called by MkDocs."""
    from mkdocs.structure.files import File

    pages = {"configuration": configuration(ROOT / "conf"), **{name: api(ROOT, name) for name in PACKAGES}}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def api(root: Path, name: str) -> str:
    """The page of one package: every public name in `__all__`, or of a module its public classes and functions."""
    module = root / "depth_lightning" / f"{name}.py"
    source = module if module.is_file() else root / "depth_lightning" / name / "__init__.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    public = [
        element.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List) and node.targets[0].id == "__all__"
        for element in node.value.elts
    ] or [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    opening = f": {doc[0].lower()}{doc[1:]}" if (doc := ast.get_docstring(tree)) else "."
    directives = "\n\n".join(f"::: depth_lightning.{name}.{each}" for each in public)
    return f"# {name.capitalize()}\n\n`depth_lightning.{name}`{opening}\n\n{directives}\n"


def configuration(conf: Path) -> str:
    """The page of all options: the commands' own, then one section per group."""
    commands = [path for path in sorted(conf.glob("*.yaml")) if path.stem != "base"]
    groups = {path.parent.relative_to(conf).as_posix() for path in conf.glob("*/**/*.yaml")}
    parts = [
        "# Configuration",
        "Every option, generated from the comments in `conf/`. Select an option of a group with `group=option`, set a "
        "value with `key=value`, and add a key that is not listed with `+key=value`. `--cfg job` prints the whole "
        "configuration, `--help` the groups.",
        "## Commands",
        _section(conf / "base.yaml", "All commands", 3),
        *(_section(path, path.stem.replace("_", "-"), 3) for path in commands),
    ]
    for group in [*(each for each in ORDER if each in groups), *sorted(groups - {*ORDER})]:
        files = sorted((conf / group).glob("*.yaml"), key=lambda path: (path.stem != "default", path.stem))
        parts.append(f"## {group} {{ #{group.replace('/', '-')} }}")
        parts += [_section(path, f"{group}={path.stem}", 3, group.replace("/", ".")) for path in files]
    return "\n\n".join(parts) + "\n"


class Key(NamedTuple):
    """One line of a yaml that sets a value."""

    path: str
    value: str
    comment: str


def _section(path: Path, title: str, level: int, prefix: str = "") -> str:
    """A yaml as a heading, its comments, and a table of its keys as they are typed: below `prefix` or its package."""
    text = path.read_text(encoding="utf-8")
    if package := re.match(r"# @package (\w+)", text):
        prefix = package[1].replace("_global_", "")
    anchor = re.sub(r"\W+", "-", title.lower()).strip("-")
    parts = [f"{'#' * level} `{title}` {{ #{anchor} }}"]
    table: list[str] = []
    for each in _entries(text, prefix):
        if isinstance(each, Key):
            table.append(f"| `{each.path}` | {_code(each.value)} | {_prose(each.comment)} |")
            continue
        parts += [*_table(table), each]
        table = []
    return "\n\n".join(parts + _table(table))


def _table(rows: list[str]) -> list[str]:
    return ["\n".join(["| key | default | meaning |", "|---|---|---|", *rows])] if rows else []


def _entries(text: str, prefix: str = "") -> Iterator[Key | str]:
    """The keys of a yaml in order, below `prefix`, and as text the comments that stand on lines of their own."""
    lines = text.splitlines()
    at = dict(_keys(text, lines, prefix))
    block: list[str] = []
    for number, line in enumerate([*lines, ""]):
        if line.lstrip().startswith("#") and "@package" not in line:
            block.append(line.lstrip()[1:])
            continue
        if block:
            yield _paragraph(block)
        block = []
        if number in at:
            yield at[number]


def _keys(text: str, lines: list[str], prefix: str) -> Iterator[tuple[int, Key]]:
    """Line number → its key, of values only: not of `defaults`, nor of the keys that tell Hydra how to build."""

    def walk(node: yaml.MappingNode, above: str) -> Iterator[tuple[int, Key]]:
        for name, value in node.value:
            path = f"{above}.{name.value}" if above else str(name.value)
            if path == "hydra.help" or name.value in ("defaults", "_partial_", "_convert_"):
                continue
            line = name.start_mark.line
            nested = isinstance(value, yaml.MappingNode) and not value.flow_style
            end = name.end_mark.column + 1 if nested else value.end_mark.column
            last = line if nested else value.end_mark.line
            comment = lines[last][end:].strip() if last < len(lines) and (nested or last == line) else ""
            if nested:
                if comment:
                    yield line, Key(path, "", comment.lstrip("# "))
                yield from walk(value, path)
            else:
                raw = text[value.start_mark.index : value.end_mark.index]
                shown = raw.strip() if "\n" not in raw.strip() else "…"
                yield line, Key(path, shown, comment.lstrip("# "))

    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        yield from walk(root, prefix)


def _paragraph(lines: list[str]) -> str:
    """Comment lines as Markdown: indented ones are commands or tables, and stay as they are."""
    parts: list[str] = []
    code: list[str] = []
    for line in [*lines, " "]:
        if line.startswith("   "):
            code.append(line.strip())
            continue
        if code:
            parts.append("\n```text\n" + "\n".join(code) + "\n```\n")
            code = []
        parts.append(_prose(line.strip()))
    return "\n".join(parts).strip()


def _prose(text: str) -> str:
    """Text in which Markdown has no meaning, except for `code`."""
    pieces = text.split("`")
    plain = (re.sub(r"([\\*_{}\[\]<>|#~])", r"\\\1", piece) for piece in pieces[::2])
    code = (f"`{piece}`".replace("|", "\\|") for piece in pieces[1::2])
    return "".join(a + b for a, b in zip(plain, [*code, ""], strict=False))


def _code(value: str) -> str:
    return f"`{value}`".replace("|", "\\|") if value else ""
