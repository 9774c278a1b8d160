"""The joint threshold with deletions and insertions once more, with lists, for one block behind given text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from engine.decoding.sampler import propose
from engine.decoding.vocabulary import Vocabulary
from tests.helpers.editing import DELETE, MASK, SPLIT, EditedBlock, model_logits


@dataclass
class PlainIndel:
    """One block, a step at a time; ``num_circles`` counts how often the block was in a state that it knew."""

    block: EditedBlock
    tokens: list[int] = field(init=False)
    done: bool = False
    num_circles: int = 0
    num_shifts: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.block.tokens)
        self._given = self.tokens.index(MASK)
        self._original = [token == MASK for token in self.tokens]
        self._seen: set[tuple[int, ...]] = set()
        self._held: list[set[int]] = [set() for _ in self.tokens]
        self._updates = self._post_edits = 0

    def step(self) -> None:
        if self.done:
            return
        knobs: Mapping[str, float] = self.block.knobs  # type: ignore[assignment]
        logits = model_logits(self.block.logits_seed, self.tokens)
        proposal = propose(logits, Vocabulary(logits.shape[1]), MASK)
        orders = [self._order(row.tolist()) for row in logits]
        best, confidence = proposal.tokens_M.tolist(), proposal.confidence_M.tolist()
        masks = [place for place, token in enumerate(self.tokens) if token == MASK]
        filled = self._fill(masks, confidence, knobs["threshold"])
        last = self._count(masks, filled, int(knobs["max_post_edit_steps"]))
        if last:
            filled = masks
            best = [next(token for token in order if token not in (DELETE, SPLIT)) for order in orders]
        own = [place for place in range(self._given, len(self.tokens)) if self.tokens[place] != MASK]
        edit_threshold = torch.tensor(knobs["edit_threshold"], dtype=torch.float32).item()
        edited = [place for place in own if best[place] != self.tokens[place] and confidence[place] > edit_threshold]
        if tuple(self.tokens) in self._seen and not last and filled + edited:
            self.num_circles += 1
            place = min(sorted(filled + edited), key=lambda one: confidence[one])
            best[place] = next(token for token in orders[place] if token not in self._held[place])
        self._write(sorted(filled + edited), best)
        self.done = last or not filled + edited

    def _order(self, row: list[float]) -> list[int]:
        return sorted((token for token in range(len(row)) if token != MASK), key=lambda token: -row[token])

    def _fill(self, masks: list[int], confidence: list[float], threshold: float) -> list[int]:
        first = [place for place in masks if self._original[place]]
        if not first:
            return masks
        confident = [
            place for place in masks if confidence[place] > torch.tensor(threshold, dtype=torch.float32).item()
        ]
        due = 1 + len(masks) - len(first)
        return confident if len(confident) >= due else sorted(masks, key=lambda place: -confidence[place])[:due]

    def _count(self, masks: list[int], filled: list[int], budget: int) -> bool:
        self._updates += 1
        self._post_edits += not any(self._original[place] for place in masks)
        open_originals = any(self._original[place] for place in masks if place not in filled)
        spent = self._post_edits >= budget if budget else not open_originals
        return spent or self._updates > len(self.tokens) + budget

    def _write(self, places: list[int], best: list[int]) -> None:
        self._seen.add(tuple(self.tokens))
        after: list[tuple[int, bool]] = []
        for place, (token, original) in enumerate(zip(self.tokens, self._original, strict=True)):
            new = best[place] if place in places else token
            if place in places:
                self._held[place].add(new)
            if new == SPLIT:
                after += [(MASK, False), (token, original)]
            elif new != DELETE:
                after.append((new, original))
        self.num_shifts += any(best[place] in (DELETE, SPLIT) for place in places)
        after = (after + [(MASK, False)] * len(self.tokens))[: len(self.tokens)]
        self.tokens, self._original = [token for token, _ in after], [original for _, original in after]
