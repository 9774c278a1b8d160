"""MBPP (Austin et al. 2021): a task in words, with asserts that the code has to pass."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.evaluation.formats.format import Format, Record, kind_field, name_field, text_field, texts_field
from engine.evaluation.tasks.sample import CodeTests, Sample

INSTRUCTION = "Answer with the Python code in one block."


class Mbpp(Format):
    """Rows ``{"text" or "prompt", "code", "test_list"}``, of the sanitized edition too. Base models see the
    paper's prompt with three solved examples; there the code ends at ``[DONE]``."""

    name = "mbpp"
    verifier = "code"
    max_tokens = 512
    stop = ("[DONE]",)
    shots = 3

    def recognises(self, record: Record) -> bool:
        return "test_list" in record and bool({"text", "prompt"} & record.keys())

    def parse(self, record: Record) -> Sample:
        checks = texts_field(record, "test_list")
        if not checks:
            raise ConfigError("needs at least one assert in 'test_list'", "test_list")
        setup = record.get("test_setup_code", "")
        if not isinstance(setup, str):
            raise ConfigError("needs a text in 'test_setup_code'", "test_setup_code")
        before = "\n".join([*texts_field(record, "test_imports"), setup]).strip()
        solution = text_field(record, "code") if "code" in record else ""
        tests = CodeTests(before, "\n".join(checks) + "\n")
        prompt = text_field(record, "text", "prompt").strip()
        return Sample(kind_field(record, self.name), prompt, solution, name_field(record), tests)

    def question(self, sample: Sample) -> str:
        return f"{self._task(sample)}\n{INSTRUCTION}"

    def reply(self, sample: Sample) -> str:
        return f"```python\n{sample.answer.strip()}\n```"

    def opening(self, sample: Sample) -> str:
        return f"You are an expert Python programmer, and here is your task: {self._task(sample)}\n[BEGIN]\n"

    def closing(self, sample: Sample) -> str:
        return f"{sample.answer.strip()}\n[DONE]\n\n"

    def _task(self, sample: Sample) -> str:
        assert sample.tests is not None
        return f"{sample.prompt} Your code should pass these tests:\n\n{sample.tests.check}"
