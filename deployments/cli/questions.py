"""The questions that ``lacuna eval`` asks, and what goes with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError, InvalidRequestError

if TYPE_CHECKING:
    from engine.evaluation.evaluate import EvalConfig
    from engine.evaluation.formats.format import Format
    from engine.evaluation.tasks.sample import Sample
    from engine.evaluation.verifiers import Verifier
    from engine.tokenizer import Tokenizer

MAX_NAMED_ROWS = 10


@dataclass(frozen=True, slots=True)
class Questions:
    """Samples of one format."""

    format: Format
    samples: tuple[Sample, ...]

    @classmethod
    def read(cls, data: Path | None, format_name: str, kinds: Sequence[str] | None, count: int, seed: int) -> Questions:
        """Those of the file, or built-in ones; bad rows are named on stderr."""
        from engine.evaluation.datasets import held_out_set, read_data
        from engine.evaluation.formats.table import AUTO, PLAIN

        if data is None:
            if format_name != AUTO:
                raise InvalidRequestError("--format is about the file given by --data", "format")
            return cls(PLAIN, tuple(held_out_set(kinds, count, seed)))
        found = read_data(data, format_name)
        _name_bad_rows(found.bad_rows, len(found.samples))
        samples = tuple(sample for sample in found.samples if not kinds or sample.kind in kinds)
        if not samples:
            raise InvalidRequestError("--kind: the data set has no prompt of these kinds", "kind")
        return cls(found.format, samples)

    def verifier(self, allow_code: bool, code_seconds: int) -> Verifier:
        """What marks the answers. Code is run only when the user said so; what the kernel does not protect is said on
        stderr."""
        from engine.evaluation.sandbox.host import Limits, missing_protections
        from engine.evaluation.verifiers import make_verifier

        if self.format.verifier == "code":
            if not allow_code:
                raise InvalidRequestError(
                    f"{self.format.name} is marked by running the code that the model writes. Add --allow-code to run "
                    "it on this machine, in a sandbox (README, Benchmarks, says what that protects from)",
                    "allow_code",
                )
            if missing := missing_protections():
                print(f"lacuna: this kernel does not let the sandbox protect: {', '.join(missing)}", file=sys.stderr)
        return make_verifier(self.format.verifier, Limits(seconds=code_seconds))

    def configure(
        self,
        tokenizer: Tokenizer,
        verifier: Verifier,
        mode: str,
        shots: int | None,
        shots_data: Path | None,
        num_samples: int,
    ) -> tuple[EvalConfig, tuple[Sample, ...]]:
        """How to ask, and the samples that are asked: those that serve as examples are not."""
        from engine.evaluation.evaluate import EvalConfig
        from engine.evaluation.prompts import chosen_mode

        way = chosen_mode(mode, tokenizer)
        usual = self.format.shots if way == "completion" or shots_data is not None else 0
        number = usual if shots is None else shots
        if shots_data is not None and number == 0:
            raise InvalidRequestError("--shots-data: say by --shots how many of its rows are examples", "shots")
        examples, asked = self._divide(number, shots_data)
        config = EvalConfig(format=self.format, verifier=verifier, shots=examples, mode=way, num_samples=num_samples)
        return config, asked

    def _divide(self, number: int, shots_data: Path | None) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        from engine.evaluation.datasets import read_data

        source = self.samples if shots_data is None else read_data(shots_data, self.format.name).samples
        examples = source[:number]
        if len(examples) < number or (shots_data is None and number == len(source)):
            place = "the data set" if shots_data is None else str(shots_data)
            raise ConfigError(
                f"{place} has {len(source)} rows, too few for {number} solved examples; give fewer --shots, or "
                "--shots-data with more rows",
                "shots",
            )
        return examples, self.samples if shots_data is not None else self.samples[number:]


def _name_bad_rows(rows: Sequence[str], num_good: int) -> None:
    if not rows:
        return
    print(f"lacuna: {len(rows)} of {len(rows) + num_good} rows are left out:", file=sys.stderr)
    for row in rows[:MAX_NAMED_ROWS]:
        print(f"  {row}", file=sys.stderr)
    if len(rows) > MAX_NAMED_ROWS:
        print(f"  and {len(rows) - MAX_NAMED_ROWS} more", file=sys.stderr)
