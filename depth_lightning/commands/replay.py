"""Replay a bad step of a run: `depth-lightning replay <run>/incidents/step_000123`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depth_lightning.interrupts import leave_at_once
from depth_lightning.invocation import command_line

if TYPE_CHECKING:  # torch is imported when the work starts, not for --help
    from depth_lightning.training.health.incident import Incident
    from depth_lightning.training.health.inspection import Findings

BUILT = ("model", "adapter", "camera", "loss", "optimizer", "scheduler", "protocol", "metrics")
"""The parts of the recorded configuration from which the step is rebuilt."""
SHOWN = 8
"""Gradient norms in the table; all of them are in incident.json."""


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 1 if the folder cannot be read or the network cannot be built."""
    parser = argparse.ArgumentParser(
        prog=command_line("replay"),
        description="Run a recorded step again, and show its inputs, losses and gradients, and where values break.",
    )
    parser.add_argument("folder", type=Path, help="of the incident, such as outputs/train/…/incidents/step_000123")
    parser.add_argument("--device", default=None, help="cuda, cuda:1 or cpu; by default the kind it was recorded on")
    parser.add_argument("--trust", nargs="*", default=[], help="packages whose code the configuration may name")
    options = parser.parse_args(arguments)
    leave_at_once("Interrupted. To do it again, repeat the command.")
    from depth_lightning.runs.composing import in_words
    from depth_lightning.runs.job import EXPECTED_ERRORS

    try:
        replay(options.folder, options.device, options.trust)
    except EXPECTED_ERRORS as error:
        print(f"{type(error).__name__}: {in_words(error)}", file=sys.stderr)
        return 1
    return 0


def replay(folder: Path, device: str | None = None, trust: Sequence[str] = ()) -> "Findings":
    """Run the step recorded in `folder` again, and print the record and the findings.

    Args:
        folder: written by `training.health.watch`.
        device: to run on; by default the kind of device that it was recorded on, if available.
        trust: packages whose classes the recorded configuration may name.

    Raises:
        UntrustedConfigError: the configuration names other code.
        FileNotFoundError: `folder` is not an incident's folder.
        ValueError: the folder cannot be read, or the device is not available.
    """
    import torch
    from omegaconf import OmegaConf

    from depth_lightning.models.checkpoints import load_run_state
    from depth_lightning.runs import objects
    from depth_lightning.runs.precision import exact_float32
    from depth_lightning.runs.trust import refuse_resolvers, refuse_strangers
    from depth_lightning.training.health.incident import TENSORS, read_incident
    from depth_lightning.training.health.inspection import inspect_step

    incident = read_incident(folder)
    if not incident.config:
        raise ValueError(f"{folder} does not say how its network was built, since the run had no configuration.")
    recorded = {part: incident.config.get(part) for part in BUILT}
    refuse_resolvers(recorded, str(folder))
    cfg = OmegaConf.create(recorded)
    refuse_strangers(cfg, BUILT, str(folder), trust=trust)
    if cfg.loss.get("alignment") is not None:
        print("Replayed without loss.alignment, whose frozen encoder is not in the record.")
        cfg.loss.alignment = None
    network = objects.build_network(cfg.model, cfg.get("adapter"))
    load_run_state(network, incident.weights, folder / "weights.safetensors")
    objective = objects.build_module(cfg, network).objective
    assert objective is not None
    if incident.findings.gradient_norms:  # with callbacks=unfreeze, what learned at that step
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in incident.findings.gradient_norms)
    recorded_on = incident.circumstances.device.partition(":")[0]
    place = torch.device(device or (recorded_on if recorded_on == "cpu" or torch.cuda.is_available() else "cpu"))
    try:
        network.to(place)
        batches = [
            batch._replace(**{name: getattr(batch, name).to(place) for name in TENSORS}) for batch in incident.batches
        ]
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device={device} is not available: {str(error).splitlines()[0]}") from error
    exact_float32()
    now, _ = inspect_step(
        network, objective, batches, incident.circumstances.precision, incident.circumstances.loss_scale
    )
    _print_record(incident)
    _print_findings(incident, now, str(place))
    return now


def _print_record(incident: "Incident") -> None:
    step = incident.circumstances
    print(f"\nStep {step.step} of epoch {step.epoch + 1}: {step.reason}.")
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in step.learning_rates.items())
    scale = f", loss scale {step.loss_scale:g}" if step.loss_scale != 1 else ""
    print(f"Learning rates {rates}; {step.precision}{scale}; recorded on {step.device} with torch {incident.torch}.")
    if step.world_size > 1:
        losses = ", ".join(f"{loss:.4g}" for loss in step.loss_by_process)
        print(f"{step.world_size} processes with losses {losses}; this is the part of process {step.rank}.")


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
    print_rows(f"Replayed on {device}: loss {_mean(now.losses):.4g}", header, [rows])
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
    step = incident.circumstances
    if now.finite and not incident.findings.finite:
        print("It broke then and does not now: another device or torch version, or kernels that are not deterministic.")
    elif now.finite and not math.isfinite(step.loss + step.gradient_norm):
        print("It broke in the run, but not when inspected right after: faulty hardware, or non-deterministic kernels.")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    sys.exit(main())
