"""The table of named strategies. Numbers in descriptions are the sources' own, on the sources' hardware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.config import OwnStrategy
from engine.errors import ConfigError
from engine.presets.named import GOALS, NamedStrategy

Settings = tuple[Mapping[str, object], str, str]
"""Options, source, description."""

FAST_DLLM = "Fast-dLLM (arXiv 2505.22618)"
DINFER = "dInfer (arXiv 2510.08666)"
LLADA2 = "LLaDA2.0 report, LLaDA2.0-mini"
LLADA21 = "LLaDA2.1 (arXiv 2602.08676), model card"
MEASURED = "measured with lacuna eval, engine/evaluation/results"
MEASURED_ONCE = "measured on the checkpoint that had this name when version 1 was made"
MEASURED_TD = "measured with lacuna distill-report, engine/training/DESIGN.md"
VICINITY = {"cache": "vicinity", "prefix_look": 16, "after_look": 16, "warmup_steps": 4}
SMOOTHING = {"smoothing_weight": 0.3}
CACHED_SMOOTHED = {**VICINITY, **SMOOTHING}
CREDIT = {"credit_alpha": 0.7}


def _family(family: str, **settings: Settings) -> tuple[NamedStrategy, ...]:
    """One strategy per goal, under the goal's name."""
    return _version(family, 1, settings)


def _version(family: str, version: int, settings: Mapping[str, Settings]) -> tuple[NamedStrategy, ...]:
    """A version of the strategies of some goals; the others keep their last one."""
    return tuple(
        NamedStrategy(
            name=goal,
            family=family,
            goal=goal,
            options=options,
            source=source,
            description=description,
            version=version,
        )
        for goal in GOALS
        if goal in settings
        for options, source, description in (settings[goal],)
    )


def _above(threshold: float, cache: str, **others: object) -> Mapping[str, object]:
    """LLaDA's rule of a confidence that fills a position."""
    return {"decoder": "threshold", "threshold": threshold, "cache": cache, **others}


def _dynamic(threshold: float, **others: object) -> Mapping[str, object]:
    """SDAR's rule of the same."""
    return {"decoder": "low_confidence_dynamic", "threshold": threshold, "cache": "block", **others}


def _editing(decoder: str, scored: str) -> dict[str, Settings]:
    """LLaDA2.1's two published modes, and one between them."""
    shared = {"decoder": decoder, "max_post_edit_steps": 16, "cache": "block", "block_length": 32}
    return {
        "quality": (
            {**shared, "threshold": 0.7, "edit_threshold": 0.5},
            f"{LLADA21}, quality mode",
            f"{scored} 63.9 at 3.1 tokens per forward.",
        ),
        "balanced": (
            {**shared, "threshold": 0.6, "edit_threshold": 0.25},
            "half-way between LLaDA2.1's two modes, not measured",
            "Between quality and fast.",
        ),
        "fast": (
            {**shared, "threshold": 0.5, "edit_threshold": 0.0},
            f"{LLADA21}, speed mode",
            f"{scored} 62.1 at 5.3 tokens per forward.",
        ),
    }


NAMED_STRATEGIES: tuple[NamedStrategy, ...] = (
    *_family(
        "llada",
        quality=(
            {"decoder": "low_confidence", "cache": "none", "block_length": 32},
            "LLaDA (arXiv 2502.09992), generate.py",
            "One token per forward, nothing reused.",
        ),
        balanced=(
            _above(0.9, "dual", block_length=32),
            f"{FAST_DLLM}, the paper's setting",
            "Everything above 0.9: 3 tokens per forward, GSM8K 76.9 against 77.6 (256), 74.7 against 77.0 (1024).",
        ),
        fast=(
            {"decoder": "factor", "factor": 1.0, "cache": "dual", "block_length": 32},
            f"{FAST_DLLM}, the selected factor",
            "As many as the bound of parallel decoding allows: 4.4 tokens per forward, GSM8K 1 to 2.4 points lower.",
        ),
    ),
    *_family(
        "llada-moe",
        quality=(
            {"decoder": "low_confidence", "cache": "none", "block_length": 64},
            f"{DINFER}, baseline",
            "One token per forward, nothing reused; mean score 54.8.",
        ),
        balanced=(
            _above(0.8, "none", block_length=64, **SMOOTHING, **CREDIT),
            f"{DINFER}, credit decoding and smoothing without cache",
            "Everything above 0.8 after credit; mean score 54.3 at 4.3 tokens per forward.",
        ),
        fast=(
            {"decoder": "threshold", "threshold": 0.8, "block_length": 64, **CACHED_SMOOTHED},
            f"{DINFER}, main setting",
            "Everything above 0.8, K/V refreshed near the block; mean score 54.0 at 3.9 tokens per forward, 1.7 "
            "times the tokens per second of balanced.",
        ),
    ),
    *_family(
        "llada-moe-td",
        quality=(
            {"decoder": "low_confidence", "cache": "none", "block_length": 64},
            "LLaDA (arXiv 2502.09992), generate.py",
            "One token per forward, nothing reused.",
        ),
        balanced=(
            {
                "decoder": "hierarchical",
                "threshold": 0.92,
                "low_threshold": 0.62,
                "block_length": 64,
                **CACHED_SMOOTHED,
            },
            f"{DINFER}, setting of the distilled model",
            "Splits masked runs at their best position; mean score 52.7 at 5.7 tokens per forward.",
        ),
        fast=(
            {"decoder": "hierarchical", "threshold": 0.9, "low_threshold": 0.3, "block_length": 64, **CACHED_SMOOTHED},
            "dInfer's documentation of hierarchical decoding",
            "The same with a lower bar for splitting.",
        ),
    ),
    *_family(
        "llada2",
        quality=(
            _above(0.95, "block", block_length=32),
            f"{LLADA2}, threshold 0.95",
            "Score 70.2 at 2.6 tokens per forward.",
        ),
        balanced=(
            _above(0.9, "block", block_length=32),
            "dInfer's guide to LLaDA2.0",
            "Between the report's two settings.",
        ),
        fast=(
            _above(0.85, "block", block_length=32),
            f"{LLADA2}, threshold 0.85",
            "Score 67.9 at 3.3 tokens per forward.",
        ),
    ),
    *_family("llada2.1", **_editing("joint_threshold", "LLaDA2.1-mini: score")),
    *_family(
        "llada2.2", **_editing("joint_threshold_indel", "As LLaDA2.1, with deletions and insertions; there: score")
    ),
    *_family(
        "dream",
        quality=(
            {"decoder": "entropy", "cache": "none", "block_length": 32},
            "Dream (arXiv 2508.15487), alg=entropy",
            "One token per forward, lowest entropy first; the authors draw with temperature 0.1, top_p 0.9.",
        ),
        balanced=(
            _above(0.9, "prefix", block_length=32),
            f"{FAST_DLLM}, Dream with the prefix cache",
            "Everything above 0.9: GSM8K 74.8 against 75.0 of one token per forward.",
        ),
        fast=(
            _above(0.9, "dual", block_length=32),
            f"{FAST_DLLM}, Dream with the dual cache",
            "As balanced, but computes only the block between refreshes.",
        ),
    ),
    *_family(
        "sdar",
        quality=(
            {"decoder": "low_confidence_static", "cache": "block"},
            "SDAR (arXiv 2510.06303), greedy static evaluation",
            "One token per forward.",
        ),
        balanced=(
            _dynamic(0.9),
            "SDAR (arXiv 2510.06303), dynamic at 0.9",
            "Everything above 0.9: 2.3 to 2.6 times as fast as static on MATH500; 3 points lower in TraDo's table.",
        ),
        fast=(
            _dynamic(0.85),
            "SDAR's generate.py and LMDeploy, their default",
            "Everything above 0.85.",
        ),
    ),
    *_family(
        "lacuna-tiny-llada",
        quality=({"decoder": "low_confidence", "cache": "none"}, MEASURED, "One token per forward, nothing reused."),
        balanced=(
            _above(0.9, "dual"),
            MEASURED,
            "Everything above 0.9 in blocks of 8.",
        ),
        fast=(
            _above(0.9, "dual", block_length=16),
            MEASURED,
            "Everything above 0.9 in blocks of 16: more tokens per forward at less accuracy.",
        ),
    ),
    *_family(
        "lacuna-tiny-llada-moe-td",
        quality=({"decoder": "low_confidence", "cache": "none"}, MEASURED_TD, "One token per forward, nothing reused."),
        balanced=(
            _above(0.95, "dual", block_length=16),
            MEASURED_TD,
            "Everything above 0.95 in blocks of 16, which it was distilled for.",
        ),
        fast=(
            _above(0.95, "dual", block_length=32),
            MEASURED_TD,
            "Everything above 0.95 in blocks of 32: more tokens per forward at less accuracy.",
        ),
    ),
    *_family(
        "lacuna-tiny-sdar",
        quality=({"decoder": "low_confidence_static", "cache": "block"}, MEASURED, "One token per forward."),
        balanced=(
            _dynamic(0.9),
            MEASURED_ONCE,
            "Everything above 0.9 in blocks of 4.",
        ),
        fast=(
            _dynamic(0.9, block_length=8),
            MEASURED_ONCE,
            "Everything above 0.9 in blocks of 8: for a network that was trained with them, like lacuna-tiny-sdar-b8.",
        ),
    ),
    *_version(
        "lacuna-tiny-sdar",
        2,
        {
            "balanced": (_dynamic(0.95), MEASURED, "Everything above 0.95 in blocks of 4."),
            "fast": (_dynamic(0.6), MEASURED, "Everything above 0.6 in blocks of 4."),
        },
    ),
    *_family(
        "lacuna-tiny-sdar-b8",
        quality=({"decoder": "low_confidence_static", "cache": "block"}, MEASURED, "One token per forward."),
        balanced=(_dynamic(0.99), MEASURED, "Everything above 0.99 in blocks of 8."),
        fast=(_dynamic(0.9), MEASURED, "Everything above 0.9 in blocks of 8."),
    ),
)


def strategies_of(family: str, own: Iterable[OwnStrategy] = ()) -> tuple[NamedStrategy, ...]:
    """Every version of every named strategy of a family, then the operator's. ConfigError when these claim a version
    that there is already, or stand for another named strategy (which may change with a release)."""
    named = [one for one in NAMED_STRATEGIES if one.family == family]
    for one in own:
        if "preset" in one.options:
            message = f"strategies: {one.name!r} names a preset; write the options of that preset instead"
            raise ConfigError(message, "strategies")
        added = NamedStrategy(
            name=one.name,
            family=family,
            goal=one.goal,
            options=one.options,
            source=one.source,
            description=one.description,
            version=one.version,
        )
        if added.label in {other.label for other in named}:
            message = f"strategies: there is a {added.label!r} already; give yours the next version or another name"
            raise ConfigError(message, "strategies")
        named.append(added)
    return tuple(named)
