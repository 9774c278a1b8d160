"""HumanEval (Chen et al. 2021): the body of a Python function, from its head and docstring."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.evaluation.formats.format import Format, Record, kind_field, name_field, text_field
from engine.evaluation.tasks.sample import CodeTests, Sample

INSTRUCTION = "Complete this Python function. Answer with the whole function in one block of code."


class HumanEval(Format):
    """Rows ``{"task_id", "prompt", "canonical_solution", "test", "entry_point"}``. Base models go on from
    the prompt as it is, up to the first line that begins something new (the paper's stop sequences)."""

    name = "humaneval"
    verifier = "code"
    max_tokens = 512
    stop = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

    def recognises(self, record: Record) -> bool:
        return {"prompt", "test", "entry_point"} <= record.keys()

    def parse(self, record: Record) -> Sample:
        prompt, entry_point = text_field(record, "prompt"), text_field(record, "entry_point").strip()
        if not entry_point.isidentifier() or f"def {entry_point}" not in prompt:
            raise ConfigError(f"needs a function of its prompt in 'entry_point', not {entry_point!r}", "entry_point")
        check = f"{text_field(record, 'test')}\ncheck({entry_point})\n"
        solution = text_field(record, "canonical_solution") if "canonical_solution" in record else ""
        tests = CodeTests(prompt, check, entry_point)
        return Sample(kind_field(record, self.name), prompt, solution, name_field(record), tests)

    def question(self, sample: Sample) -> str:
        return f"{INSTRUCTION}\n```python\n{sample.prompt.strip()}\n```"

    def reply(self, sample: Sample) -> str:
        return f"```python\n{sample.prompt.strip()}\n{sample.answer.rstrip()}\n```"
