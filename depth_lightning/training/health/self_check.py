"""Checks before the first step: a run that cannot learn ends within seconds, not after a night.

Samples are read directly from the data sets, without starting workers. The check has no side effects: the weights after
the run are bit for bit those of a run without it.
"""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from depth_lightning.data import Mixture
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.models import LoadReport, normalize
from depth_lightning.models.adapters import is_adapters, is_first_matrix
from depth_lightning.sample import DepthBatch, DepthKind, DepthSample, collate
from depth_lightning.training.health.inspection import Findings, inspect_step
from depth_lightning.training.health.isolation import isolated, mixed_precision
from depth_lightning.training.module import DepthModule
from depth_lightning.training.sharding import is_sharded
from depth_lightning.wording import counted, significant

log = logging.getLogger(__name__)

BATCH = 4
"""Most images that are run through the network; fewer if the batch size is smaller."""
TARGETS = 16
"""Training images whose ground truth is examined; of a mixture, of every part."""


class SelfCheckError(ValueError):
    """The run cannot learn as configured."""


class Page(NamedTuple):
    """The results of the checks."""

    lines: list[str]
    warnings: list[str]
    problems: list[str]
    """Reasons to end the run."""


class SelfCheck(Callback):
    """Checks weights, gradients, outputs, loss and targets before the first step, and logs a page of results.

    The first process checks, and all processes end if the run cannot learn.

    Args:
        loaded: what was loaded into the network; None if nothing was.

    Raises:
        SelfCheckError: from `Trainer.fit`.
    """

    def __init__(self, loaded: LoadReport | None = None) -> None:
        self.loaded = loaded

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Run the checks: network and data are ready, and no worker has started yet."""
        assert isinstance(module, DepthModule)
        if is_sharded(module.network):
            rank_zero_only(log.info)("No self-check: it needs the complete network, which is sharded here.")
            return
        error: Exception | None = None
        if trainer.is_global_zero:
            try:
                self._check(trainer, module)
            except (ValueError, OSError) as problem:
                error = problem
        failed = trainer.strategy.broadcast(error is not None)
        if error is not None:
            raise error
        if failed:
            sys.exit(1)  # the first process reports why

    def _check(self, trainer: lightning.Trainer, module: DepthModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        source = data.train_data.dataset.source
        ranges = source.ranges() if isinstance(source, Mixture) else {"": range(len(source))}
        page = examine(
            module,
            _on_device(module, _spread(data.train_data, min(BATCH, data.batch_size))),
            {name: [data.train_data[i] for i in evenly_spread(indices, TARGETS)] for name, indices in ranges.items()},
            [_on_device(module, [sample]) for sample in _spread(data.val_data, BATCH)],
            str(trainer.precision),
            self.loaded,
        )
        log.info("\n  ".join(["Self-check before the first step (self_check=false skips it):", *page.lines]))
        for warning in page.warnings:
            log.warning(f"  WARNING: {warning}")
        if page.problems:
            raise SelfCheckError(f"{page.problems[0]} To train anyway: self_check=false")


def examine(
    module: DepthModule,
    batch: DepthBatch,
    targets: Mapping[str, Sequence[DepthSample]],
    validation: Sequence[DepthBatch],
    precision: str = "32-true",
    loaded: LoadReport | None = None,
) -> Page:
    """Check one training batch in training and evaluation mode, the targets of several samples, and validation images.

    Targets are by the part of a mixture, or under an empty name. Validation images are run through the network one at
    a time.
    """
    page = Page([], [], [])
    _weights(page, module, loaded)
    of_parts = {name: _targets(module, samples) for name, samples in targets.items()}
    hopeless = all(own.problems for own in of_parts.values())
    for name, own in of_parts.items():
        mark = f"{name}: " if name else ""
        page.lines.extend(mark + line for line in own.lines)
        page.warnings.extend(mark + warning for warning in own.warnings)
        (page.problems if hopeless else page.warnings).extend(mark + problem for problem in own.problems)
    assert module.objective is not None
    findings, _ = inspect_step(module.network, module.objective, [batch], precision)
    _gradients(page, module, findings)
    _outputs(page, module, batch, findings, precision)
    _zero_shot(page, module, validation, precision, loaded)
    return page


def _weights(page: Page, module: DepthModule, loaded: LoadReport | None) -> None:
    network = module.network
    if loaded is None:
        page.lines.append("weights: none loaded, all random")
        return
    own = {name: p for name, p in network.named_parameters() if not is_adapters(name)}
    total, adapters = _count(own.values()), _count(network.parameters()) - _count(own.values())
    filled = _count(p for name, p in own.items() if loaded.init == "all" or name.startswith(f"{loaded.init}."))
    rest = "" if filled == total else f"; the {'head' if loaded.init == 'encoder' else 'encoder'} is random"
    rest += "; the head's last layer is new" if loaded.left_out else ""
    rest += f"; {adapters:,} of adapters, which add 0 at first" if adapters else ""
    page.lines.append(f"weights: {100 * filled / total:.1f} % of {total:,} parameters from {loaded.path.name}{rest}")


def _targets(module: DepthModule, samples: Sequence[DepthSample]) -> Page:
    page = Page([], [], [])
    valid = [sample.target[sample.mask] for sample in samples]
    share = sum(values.size for values in valid) / sum(sample.mask.size for sample in samples)
    every = np.concatenate(valid)
    if not every.size:
        page.problems.append(
            f"None of {counted(len(samples), 'training image')} has a valid target pixel: nothing can be learned."
        )
        return page
    low, middle, high = (significant(value) for value in np.percentile(every, [2, 50, 98]))
    kinds = ", ".join(sorted({sample.kind.name.lower().replace("_", " ") for sample in samples}))
    line = f"targets: {100 * share:.0f} % valid in {counted(len(samples), 'training image')}, {low} to {high} ({kinds})"
    empty = sum(not values.size for values in valid)
    if 2 * empty > len(samples):
        page.warnings.append(f"{empty} of {len(samples)} training images have no valid target pixel.")
    metric = [values for values, sample in zip(valid, samples, strict=True) if sample.kind == DepthKind.METRES]
    metres = np.concatenate([*metric, np.empty(0, np.float32)])
    most = module.network.max_depth
    if module.network.output == "metric" and metres.size:
        beyond = float((metres > most).mean())
        line += f", {100 * beyond:.1f} % of the metres beyond model.max_depth={most:g}"
        message = (
            f"{100 * beyond:.0f} % of the targets are beyond model.max_depth={most:g}, the largest depth that the "
            f"network predicts; their median is {middle}. Are the targets in metres (data.depth_scale: stored units "
            "per metre)? If they are, choose a larger model.max_depth."
        )
        if beyond > 0.9:
            page.problems.append(message)
        elif beyond > 0.2:
            page.warnings.append(message)
        elif module.network.head_name == "sigmoid" and np.percentile(metres, 98) < most / 50:
            page.warnings.append(
                f"98 % of the targets are below {high}, less than a fiftieth of model.max_depth={most:g}. Are they in "
                "metres (data.depth_scale: stored units per metre)? If they are, choose a smaller model.max_depth."
            )
    page.lines.append(line)
    return page


def _gradients(page: Page, module: DepthModule, findings: Findings) -> None:
    trainable = {name: p for name, p in module.network.named_parameters() if p.requires_grad}
    # An adapter's first matrix gets a gradient once its second, which starts at 0, has taken a step. A loss up to a
    # shift gives the last bias one by rounding alone.
    shifts = {"head.scratch.output_conv2.2.bias"} if module.network.output == "relative" else set[str]()
    expected = [name for name in trainable if not is_first_matrix(name) and name not in shifts]
    without = [name for name in expected if findings.gradient_norms.get(name, 0.0) == 0]
    total, lacking = _count(trainable.values()), sum(trainable[name].numel() for name in without)
    share = f"{100 * total / _count(module.network.parameters()):.1f} % of the parameters are trained"
    names = ", ".join(without[:5]) + (" …" if len(without) > 5 else "")
    if not without:
        page.lines.append(f"gradients: {share}, and all of them get one")
        return
    page.lines.append(f"gradients: {share}; {100 * (1 - lacking / total):.1f} % of these get one")
    if without == expected:
        page.problems.append("No parameter gets a gradient from a training batch: nothing would be learned.")
    else:
        page.warnings.append(f"{len(without)} of {len(trainable)} trained tensors get no gradient: {names}.")


def _outputs(page: Page, module: DepthModule, batch: DepthBatch, findings: Findings, precision: str) -> None:
    network, objective = module.network, module.objective
    assert objective is not None
    with isolated(network), torch.no_grad(), mixed_precision(precision, batch.image.device):
        network.eval()
        prediction, alignment = objective.predict(network, normalize(batch.image))
        losses = objective.by_kind(prediction, batch.target, batch.mask, batch.kind)
        evaluated = objective.weighed(losses, batch.kind, alignment).value.item()
    flat = float(torch.tensor(findings.saturated).mean())
    height, width = batch.image.shape[-2:]
    page.lines.append(
        f"one batch: {counted(len(batch.image), 'image')} of {height}×{width}, loss {findings.losses[0]:.4g} in "
        f"training mode, {evaluated:.4g} in evaluation mode; {100 * flat:.0f} % of the outputs saturated"
    )
    if not findings.finite or not np.isfinite(evaluated):
        page.problems.insert(0, f"The first batch's loss or gradient is not finite. {' '.join(findings.origin())}")
    elif flat > 0.999:
        dead = (
            "0"
            if network.output == "relative"
            else f"at an end of the {network.head_name.replace('_', ' ')}, 0 or model.max_depth={network.max_depth:g}"
        )
        page.problems.insert(
            0,
            f"The network is dead: {100 * flat:.1f} % of its outputs are {dead}, where the gradient vanishes. "
            "Load other weights, or change seed.",
        )
    elif flat > 0.5:
        page.warnings.append(f"{100 * flat:.0f} % of the outputs are saturated, and their gradient vanishes.")


def _zero_shot(
    page: Page, module: DepthModule, validation: Sequence[DepthBatch], precision: str, loaded: LoadReport | None
) -> None:
    if loaded is None or loaded.init != "all" or loaded.left_out:
        return
    correlations = []
    with isolated(module.network), torch.no_grad():
        module.network.eval()
        for batch in validation:
            with mixed_precision(precision, batch.image.device):
                prediction = module.predict_batch(batch).float()
            correlations.append(_correlation(module, batch, prediction))
    finite = [value for value in correlations if np.isfinite(value)]
    if not finite:
        page.warnings.append(
            "The loaded weights could not be checked on validation images: none has ground truth that varies."
        )
        return
    mean = float(np.mean(finite))
    page.lines.append(
        f"zero-shot: correlation {mean:.2f} with the ground truth, averaged over "
        f"{counted(len(finite), 'validation image')}"
    )
    message = (
        f"Before any training, the loaded weights' predictions have a correlation of {mean:.2f} with the ground truth; "
        "released weights have 0.9 on most data. Is data.kind right, depth or disparity? Does each depth map belong to "
        "its image?"
    )
    if mean < 0:
        page.problems.append(message)
    elif mean < 0.5:
        page.warnings.append(message)


def _correlation(module: DepthModule, batch: DepthBatch, prediction: Tensor) -> float:
    """Pearson correlation over one image's valid pixels, in the network's output: depth or disparity."""
    mask = batch.mask[0] & (batch.target[0] > 0)
    predicted, truth = prediction[0][mask], batch.target[0][mask]
    if (batch.kind[0] == DepthKind.DISPARITY) != (module.network.output == "relative"):
        truth = 1 / truth
    return float(torch.corrcoef(torch.stack([predicted, truth]).double())[0, 1]) if len(truth) > 1 else float("nan")


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _spread(data: Sequence[DepthSample], count: int) -> list[DepthSample]:
    """Samples spread evenly over the data."""
    return [data[index] for index in evenly_spread(range(len(data)), count)]


def _on_device(module: DepthModule, samples: list[DepthSample]) -> DepthBatch:
    return cast(DepthBatch, module.transfer_batch_to_device(collate(samples), module.device, 0))
