"""Text and tokens of a completion do not depend on how its tokens arrive."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.text_stream import TextIncrement, TextStream
from tests.helpers.engines import ByteTokenizer

TEXTS = st.text(alphabet="abé", max_size=10)
STOPS = st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3)


class Whole(NamedTuple):
    text: str
    token_ids: tuple[int, ...]
    stop: str | None


def feed(parts: Sequence[Sequence[int]], stop: Sequence[str]) -> list[TextIncrement]:
    """Increments up to the stop or the end."""
    stream = TextStream(ByteTokenizer().detokenizer(), stop)
    increments: list[TextIncrement] = []
    for index, part in enumerate(parts):
        increments.append(stream.add(part, last=index == len(parts) - 1))
        if increments[-1].stop is not None:
            break
    assert stream.num_tokens == sum(len(increment.token_ids) for increment in increments)
    return increments


def whole(increments: Sequence[TextIncrement]) -> Whole:
    tokens = tuple(token for increment in increments for token in increment.token_ids)
    return Whole("".join(increment.text for increment in increments), tokens, increments[-1].stop)


def cut(text: str, stop: Sequence[str]) -> tuple[str, str | None]:
    """Plain definition: the stop string that is complete first ends it, the longest of those that end together."""
    hits = [(text.find(item) + len(item), text.find(item), item) for item in stop if item in text]
    if not hits:
        return text, None
    _, start, item = min(hits)
    return text[:start], item


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    tokens = list(draw(TEXTS).encode())
    borders = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=6)))
    edges = [0, *borders, len(tokens)]
    return tokens, [tokens[a:b] for a, b in pairwise(edges)]


@settings(max_examples=150)
@given(splits(), STOPS)
def test_any_split_gives_the_same_completion(split: tuple[list[int], list[list[int]]], stop: list[str]) -> None:
    tokens, parts = split
    together, apart = whole(feed([tokens], stop)), whole(feed(parts, stop))

    assert apart == together
    text, found = cut(bytes(tokens).decode(), stop)
    assert (together.text, together.stop) == (text, found)
    assert tokens[: len(together.token_ids)] == list(together.token_ids)


@settings(max_examples=100)
@given(splits(), STOPS)
def test_nothing_of_a_stop_string_is_ever_shown_and_text_never_waits_for_longer(
    split: tuple[list[int], list[list[int]]], stop: list[str]
) -> None:
    tokens, parts = split
    final = whole(feed(parts, stop)).text
    shown, seen = "", 0
    for increment, part in zip(feed(parts, stop), parts, strict=False):
        shown, seen = shown + increment.text, seen + len(part)
        assert final.startswith(shown)
        known = bytes(tokens[:seen]).decode(errors="ignore")
        held = known[len(shown) :]
        if increment.stop is None and held:
            assert any(item.startswith(held) for item in stop), "text is held back that begins no stop string"


def test_the_tokens_of_the_shown_text_are_shown() -> None:
    completion = whole(feed([list(b"hello STOP more")], ["STOP"]))
    assert completion == ("hello ", tuple(b"hello "), "STOP")


def test_a_stop_string_across_token_and_block_borders() -> None:
    increments = feed([list(b"ab#"), list(b"#"), list(b"#END")], ["###"])
    assert [increment.text for increment in increments] == ["ab", "", ""]
    assert [increment.stop for increment in increments] == [None, None, "###"]


def test_held_back_text_comes_when_it_turns_out_harmless() -> None:
    increments = feed([list(b"ab#"), list(b"c"), list(b"#")], ["##"])
    assert [increment.text for increment in increments] == ["ab", "#c", "#"]
    assert [increment.token_ids for increment in increments] == [(97, 98), (35, 99), (35,)]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("xabcd", ["abcd", "c"], ("xab", "c")),
        ("xabcd", ["bcd", "cd"], ("xa", "bcd")),
        ("xabcd", ["bc", "abc"], ("x", "abc")),
        ("xabcd", ["ab", "abc"], ("x", "ab")),
        ("xaaa", ["aa"], ("x", "aa")),
        ("no", ["yes"], ("no", None)),
        ("", ["a"], ("", None)),
    ],
)
def test_the_stop_string_that_is_complete_first_ends_it(
    text: str, stop: list[str], expected: tuple[str, str | None]
) -> None:
    for parts in ([list(text.encode())], [[token] for token in text.encode()] or [[]]):
        completion = whole(feed(parts, stop))
        assert (completion.text, completion.stop) == expected


def test_an_incomplete_character_is_held_back_and_marked_at_the_end() -> None:
    first, second = "é".encode()
    increments = feed([[97, first], [second], [first]], [])
    assert [increment.text for increment in increments] == ["a", "é", "\ufffd"]
