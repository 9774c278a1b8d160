"""CUDA graphs without a GPU: a tape of the operators that a run calls, played again on the same memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tests.helpers.syncs import WAITING, needs_a_count


class Tape(TorchDispatchMode):
    """Records operators with their arguments, as a CUDA graph does: no Python runs again, numbers stay what they were,
    and tensors that the run did not make itself are read and written where they lie. What a graph could not record
    fails."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func not in WAITING, f"{func} waits for the device: it cannot be recorded"
        assert not needs_a_count(func, args), f"{func} with a boolean index cannot be recorded"
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        made: dict[int, Tensor] = {}

        def now(tensor: Tensor) -> Tensor:
            return made.get(id(tensor), tensor)

        for func, args, kwargs, before in self._calls:
            result = func(*tree_map_only(Tensor, now, args), **tree_map_only(Tensor, now, kwargs))
            for old, new in zip(_tensors(before), _tensors(result), strict=True):
                made[id(old)] = new


def _tensors(result: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map_only(Tensor, found.append, result)
    return found


class TapeGraphs:
    """A GraphBackend; ``recorded`` counts its graphs, ``replayed`` what was played."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        run()
        tape = Tape()
        with tape:
            run()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return replay
