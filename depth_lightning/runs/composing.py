"""Hydra's errors about the words on a command line, as messages that name the key and what to type."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from depth_lightning.settings import nearest, unknown


def composition_error(error: Exception, conf: Path, command: str, words: Sequence[str]) -> str:
    """What is wrong with a command line from which Hydra cannot compose a configuration.

    Args:
        error: as Hydra raises it.
        conf: the folder of the configuration.
        command: whose file is below `conf`.
        words: the overrides.
    """
    text, cause = str(error).strip(), error.__cause__
    typed = {word.lstrip("+~").partition("=")[0]: word for word in words}
    groups = [name for entry in _defaults(conf / f"{command}.yaml") for name in entry]
    if found := re.match(r"Could not (?:override|delete) '(.+?)'\. No match in the defaults list", text):
        key = found[1].partition("=")[0]
        return str(unknown(key, groups)).replace("is not an option", f"is not a group of {command}")
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return _unknown_key(str(cause.full_key), cause.parent_node, typed, conf, groups)
    if found := re.match(r"Could not append to config. An item is already at '(.+?)'", text):
        return f"{found[1]} is an option already. Type it without the plus: {typed.get(found[1], '').lstrip('+')}"
    if found := re.match(r"Multiple values for (\S+)\.", text):
        return f"{found[1]} is chosen already. Type it without the plus, and once: {found[1]}=…"
    if found := re.match(r"Ambiguous value for argument '\+*([^=]+)=(.*)'", text):
        key, value = found.groups()
        return (
            f"{key}={value} has several values. A list takes brackets, {key}=[{value}]; a text with commas takes "
            f"quotes twice, \"{key}='{value}'\"; several jobs, one for each value, take --multirun."
        )
    if found := re.search(r"Could not (?:find|load) '(.*?)/?([^/']*)'", text):
        group, name, options = found[1], found[2], re.findall(r"\n\t(\w+)(?=\n|$)", text)
        if options:
            return f"{group} is one of {', '.join(options)}, found {name!r}.{nearest(name, options)}"
    if text.startswith("Config group override"):  # which does not name the group
        wrong = [word for key, word in typed.items() if (conf / key).is_dir()]
        return f"{' or '.join(wrong)}: a group is chosen by the name of a file in conf/, as in trainer=cpu."
    message = in_words(cause if isinstance(cause, OmegaConfBaseException) else error)
    named = any(key and key in message for key in typed)
    return message if named or not words else f"{' '.join(words)}: {message}"


def in_words(error: Exception) -> str:
    """The message of an error of OmegaConf, with the key; that of any other error on one line."""
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        problem = str(error.msg).strip().splitlines()[0].rpartition("raised while resolving interpolation: ")[2]
        return f"{error.full_key} cannot be read: {problem}."
    return " ".join(re.split("Config search path:|, possible interpolation keys", str(error))[0].split())


def _unknown_key(key: str, parent: DictConfig, typed: Mapping[str, str], conf: Path, groups: Sequence[str]) -> str:
    """A key that is not in the configuration, but perhaps in another file of its group, or an object's argument."""
    known = [str(name) for name in parent if not str(name).startswith("_")]
    if not known:
        return f"{key} does not exist: {key.rpartition('.')[0]} has no options."
    full = next((name for name in typed if name.startswith(f"{key}.")), key)
    owner, _, own = full.rpartition(".")
    others = [path.stem for path in sorted((conf / owner).glob("*.yaml")) if own in _options(path, owner)]
    if owner in groups and others:
        message = f"{full} is an option of {owner}={f' and {owner}='.join(others)}. Choose {owner}=… as well"
        return f"{message}, or if the checkpoint has that: +{full}=…" if "checkpoint" in typed else f"{message}."
    if key in groups:
        choices = ", ".join(path.stem for path in sorted((conf / key).glob("*.yaml")))
        return f"{full} is an option only where {key} is chosen as well: {key}=…, one of {choices}."
    message = str(unknown(key, known)).replace(key, full, 1)
    if "_target_" in parent and key in typed:
        message += f" An argument of {parent['_target_']} that conf/ does not list takes a plus: +{typed[key]}"
    return message


def _content(path: Path) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], OmegaConf.to_container(OmegaConf.load(path), resolve=False))


def _options(path: Path, group: str) -> Mapping[str, Any]:
    """The options of `group` in one of its files, which may write below it or at the top."""
    content = _content(path)
    return cast(Mapping[str, Any], content.get(group) or content)


def _defaults(path: Path) -> list[Mapping[str, str | None]]:
    """The entries of a file's defaults list that choose a group."""
    return [entry for entry in _content(path).get("defaults", ()) if isinstance(entry, dict)]
