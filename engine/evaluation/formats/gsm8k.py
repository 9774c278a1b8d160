"""GSM8K (Cobbe et al. 2021): word problems whose solution ends in ``#### number``."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.evaluation.formats.format import Format, Record, kind_field, name_field, text_field
from engine.evaluation.numbers import final_number
from engine.evaluation.tasks.sample import Sample

INSTRUCTION = 'Solve the problem step by step. End with a line that has "#### " and the final number only.'


class Gsm8k(Format):
    """Rows ``{"question", "answer"}``. Base models see ``Question: ... Answer: ...`` with five solved examples, as the
    LM Evaluation Harness asks it."""

    name = "gsm8k"
    verifier = "number"
    max_tokens = 256
    stop = ("Question:", "\n\n\n")
    shots = 5

    def recognises(self, record: Record) -> bool:
        return {"question", "answer"} <= record.keys()

    def parse(self, record: Record) -> Sample:
        answer = text_field(record, "answer")
        if final_number(answer) is None:
            raise ConfigError("needs a number in 'answer', best after '####'", "answer")
        question = text_field(record, "question").strip()
        return Sample(kind_field(record, self.name), question, answer.strip(), name_field(record))

    def question(self, sample: Sample) -> str:
        return f"{sample.prompt}\n{INSTRUCTION}"

    def opening(self, sample: Sample) -> str:
        return f"Question: {sample.prompt}\nAnswer:"

    def closing(self, sample: Sample) -> str:
        return f" {sample.answer}\n\n"
