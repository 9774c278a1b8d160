"""Matching the tensors that are stored with those that a network needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import nn

from engine.errors import CheckpointError, UnsupportedModelError
from engine.layers.division import Held, held_parameters
from engine.models.pieces import pieces, stored_shape
from engine.models.registry import model_family
from engine.models.spec import CheckpointTensor, DiffusionLM
from engine.models.weight_files import STORED_DTYPES, WeightFiles

MAX_LISTED = 5


def check_weights(model: DiffusionLM, weights: WeightFiles) -> Mapping[str, CheckpointTensor]:
    """Match the stored tensors against the network's; returns where each stored tensor goes."""
    targets = _targets(model, weights)
    held = held_parameters(model)
    check_coverage(model, held, targets.values())
    ignored = model_family(model.spec.architecture).ignored_tensors
    missing = [name for name in targets if name not in weights.tensors]
    if missing:
        message = f"{weights.folder} lacks {_listed(missing)}; fetch it again or correct config.json"
        raise CheckpointError(message, missing[0])
    extra = [name for name in weights.tensors if name not in targets and not any(part in name for part in ignored)]
    if extra:
        file = weights.tensors[extra[0]].file
        message = f"{file} holds {_listed(extra)} that {model.spec.architecture} does not have; correct config.json"
        raise CheckpointError(message, extra[0])
    for name, target in targets.items():
        _check_tensor(name, stored_shape(target, held[target.parameter]), weights)
    return targets


def _targets(model: DiffusionLM, weights: WeightFiles) -> Mapping[str, CheckpointTensor]:
    """Where each tensor belongs, by its name: fused ones where they are stored, the published ones otherwise."""
    fused = [target for target in model.fused_tensors() if target.name in weights.tensors]
    parameters = {target.parameter for target in fused}
    published = (target for target in model.checkpoint_tensors() if target.parameter not in parameters)
    return {target.name: target for target in (*published, *fused)}


def check_coverage(model: nn.Module, held: Mapping[str, Held], targets: Iterable[CheckpointTensor]) -> None:
    """A model must say where every element of every parameter of this rank comes from."""
    elements: defaultdict[str, int] = defaultdict(int)
    for target in targets:
        elements[target.parameter] += sum(piece.numel for piece in pieces(target, held[target.parameter]))
    for name, parameter in model.named_parameters():
        assert elements[name] == parameter.numel(), f"{name}: {elements[name]} of {parameter.numel()} have a source"


def _check_tensor(name: str, expected: tuple[int, ...], weights: WeightFiles) -> None:
    stored = weights.tensors[name]
    if stored.shape != expected:
        message = f"{stored.file}: {name} has shape {list(stored.shape)}, config.json implies {list(expected)}"
        raise CheckpointError(message, name)
    if stored.dtype not in STORED_DTYPES:
        message = f"{stored.file}: {name} is stored as {stored.dtype}; only {', '.join(STORED_DTYPES)} are supported"
        raise UnsupportedModelError(message, name)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}: {', '.join(names[:MAX_LISTED])}{more}"
