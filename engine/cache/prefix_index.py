"""Which page holds which K/V that are known by a key."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class PrefixIndex:
    """Owns the map from keys (:mod:`engine.cache.prefix_keys`) to pages. What a key names lies at the same place of its
    page wherever it is stored, so its page says it all. Of equal blocks the one that was added last counts."""

    def __init__(self) -> None:
        self._page: dict[bytes, int] = {}
        self._keys: dict[int, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._page)

    def pages(self, keys: Iterable[bytes]) -> list[int]:
        """The page of each block, up to the first one that is not known."""
        found = []
        for key in keys:
            page = self._page.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def add(self, key: bytes, page: int) -> None:
        """``page`` holds the block from now on."""
        before = self._page.get(key)
        if before is not None:
            self._keys[before].discard(key)
        self._page[key] = page
        self._keys.setdefault(page, set()).add(key)

    def holds(self, page: int) -> bool:
        """Whether any block is known to be in ``page``."""
        return bool(self._keys.get(page))

    def forget(self, page: int, but: Collection[bytes] = ()) -> None:
        """``page`` will be written anew; the blocks in ``but`` stay."""
        for key in self._keys.pop(page, set()):
            del self._page[key]
        for key in but:
            self.add(key, page)

    def check(self) -> None:
        """Assert that both directions agree."""
        assert self._page == {key: page for page, keys in self._keys.items() for key in keys}
