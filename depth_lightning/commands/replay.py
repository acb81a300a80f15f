"""Go through a step that went wrong again: `python -m depth_lightning replay <run>/incidents/step_000123`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported when the work starts, not for --help
    from depth_lightning.training.health.incident import Incident
    from depth_lightning.training.health.inspection import Findings

BUILT = ("model", "loss", "optimizer", "scheduler", "protocol", "metrics")
"""The parts of the recorded configuration that the step is made of."""
SHOWN = 8
"""Gradient norms in the table; all of them are in incident.json."""


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 1 where the folder cannot be read or the network not be built."""
    parser = argparse.ArgumentParser(
        prog="python -m depth_lightning replay",
        description="Go through a recorded step again: what it was given, every layer's numbers, and where they break.",
    )
    parser.add_argument("folder", type=Path, help="of the incident, such as outputs/train/…/incidents/step_000123")
    parser.add_argument("--device", default=None, help="cuda, cuda:1, cpu; by default the kind that it was recorded on")
    parser.add_argument("--trust", nargs="*", default=[], help="packages that its configuration may name, as yours")
    given = parser.parse_args(arguments)
    try:
        replay(given.folder, given.device, given.trust)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def replay(folder: Path, device: str | None = None, trust: Sequence[str] = ()) -> "Findings":
    """Go through the step that `folder` holds, and print what was recorded and what is found.

    Args:
        folder: what `training.watch` wrote.
        device: where; by default the kind of device that it was recorded on, if there is one.
        trust: packages whose classes the recorded configuration may name.

    Raises:
        UntrustedConfigError: the configuration names others.
        FileNotFoundError: it is no such folder.
        ValueError: it cannot be read, or there is no such device.
    """
    import torch
    from omegaconf import OmegaConf

    from depth_lightning.models.checkpoints import load_run_state
    from depth_lightning.runs import objects
    from depth_lightning.runs.trust import refuse_resolvers, refuse_strangers
    from depth_lightning.training.health.incident import read_incident
    from depth_lightning.training.health.inspection import inspect_step

    incident = read_incident(folder)
    if not (isinstance(incident.config, dict) and incident.config):
        raise ValueError(f"{folder}/incident.json holds no configuration, so that the network cannot be built from it.")
    recorded = {part: incident.config.get(part) for part in BUILT}
    refuse_resolvers(recorded, str(folder))
    cfg = OmegaConf.create(recorded)
    refuse_strangers(cfg, BUILT, str(folder), trust=trust)
    network = objects.build_network(cfg.model)
    load_run_state(network, incident.weights, folder / "weights.safetensors")
    objective = objects.build_module(cfg, network).objective
    assert objective is not None
    recorded_on = incident.circumstances.device.partition(":")[0]
    place = torch.device(device or (recorded_on if recorded_on == "cpu" or torch.cuda.is_available() else "cpu"))
    try:
        network.to(place)
        batches = [
            batch._replace(image=batch.image.to(place), target=batch.target.to(place), mask=batch.mask.to(place))
            for batch in incident.batches
        ]
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device={device} is not to be had here: {str(error).splitlines()[0]}") from error
    now, _ = inspect_step(
        network, objective, batches, incident.circumstances.precision, incident.circumstances.loss_scale
    )
    _print_record(incident)
    _print_findings(incident, now, str(place))
    return now


def _print_record(incident: "Incident") -> None:
    said = incident.circumstances
    print(f"\nStep {said.step} of epoch {said.epoch + 1}: {said.reason}.")
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in said.learning_rates.items())
    scale = f", loss scale {said.loss_scale:g}" if said.loss_scale != 1 else ""
    print(f"Learning rates {rates}; {said.precision}{scale}; recorded on {said.device} with torch {incident.torch}.")
    if said.world_size > 1:
        losses = ", ".join(f"{loss:.4g}" for loss in said.loss_by_process)
        print(f"{said.world_size} processes with losses {losses}; this is process {said.rank}'s part.")


def _print_findings(incident: "Incident", now: "Findings", device: str) -> None:
    from depth_lightning.reporting.tables import print_rows

    rows = [
        [
            identity,
            kind.name.lower(),
            f"{now.valid_pixels[number][index]:,}",
            f"{100 * now.saturated[number][index]:.1f} %",
            f"{now.terms[number][kind.name.lower()]:.4g}",
        ]
        for number, batch in enumerate(incident.batches)
        for index, (identity, kind) in enumerate(zip(batch.id, batch.kind, strict=True))
    ]
    header = {"image": False, "truth": False, "valid pixels": True, "saturated": True, "its kind's loss": True}
    print_rows(f"Gone through again on {device}: loss {_mean(now.losses):.4g}", header, [rows])
    finite = {name: norm for name, norm in now.gradient_norms.items() if math.isfinite(norm)}
    broken = len(now.gradient_norms) - len(finite)
    count = (
        f"{broken} of {len(now.gradient_norms)} gradients are not finite." if broken else "All gradients are finite."
    )
    largest = sorted(finite, key=finite.__getitem__, reverse=True)[:SHOWN]
    if largest:
        rows = [[name, f"{finite[name]:.4g}"] for name in largest]
        print_rows("Largest gradients", {"parameter": False, "norm": True}, [rows], [count])
    else:
        print(count)
    print()
    for sentence in now.origin():
        print(sentence)
    said = incident.circumstances
    if now.finite and not incident.findings.finite:
        print("It broke then and does not now: another device or torch, or kernels that differ from call to call.")
    elif now.finite and not math.isfinite(said.loss + said.gradient_norm):
        print("It broke in the run, and not when gone through at once: the machine, or kernels that differ.")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    sys.exit(main())
