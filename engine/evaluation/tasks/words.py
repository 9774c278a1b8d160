"""Closed vocabularies of the tasks, and names that no vocabulary knows."""

from __future__ import annotations

import random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Adam Alice Amy Anna Ben Bob Cara Carl Clara Dan David Ella Emma Eva Finn Frank George Grace Henry Ida Jack "
    "Jane John Julia Kate Leo Lily Lucy Maria Mark Mia Nina Noah Olga Oscar Paul Peter Rosa Sam Sara Sofia Tim "
    "Tom Vera Zoe"
)
CITIES = _words(
    "Paris London Berlin Rome Madrid Vienna Oslo Lima Cairo Tokyo Boston Delhi Athens Dublin Lisbon Prague Warsaw "
    "Seoul Havana Toronto"
)
JOBS = _words("baker doctor teacher farmer painter driver singer nurse pilot writer lawyer cook")
COLORS = _words("red blue green yellow black white brown pink gray orange")
ANIMALS = _words("cat dog fox bear owl frog duck mouse horse rabbit lion goat")
ADJECTIVES = _words("small happy brave clever lazy kind old young quiet hungry")
PLACES = _words("garden forest park kitchen river school market castle village field")
THINGS = _words("ball book hat key bag cup box lamp coin shoe toy ring")
ITEMS = _words(
    "apples books cards coins cookies eggs flowers marbles oranges pencils plums shells stamps stones toys cakes"
)
FRUIT_AND_WORDS = _words(
    "apple bird boat bread car chair cloud door fish flag glass house lemon moon paper pear plane rain rose ship "
    "snow star sun table train tree water wind"
)
FUNCTION_NAMES = _words("f g h run calc solve apply compute func change update convert")
SYLLABLES = _words(
    "ba be bo da de do fa fi ga go ka ke ki ko la le li lo ma me mi mo na ne ni no pa po ra re ri ro sa se so ta "
    "te ti to va ve vi xo za zu bran dor fen gil hul jor kim lar mon nix pel quin rul sten tor vik wen yan zor"
)

RANDOM_NAME_SHARE = 0.2


def invented_word(rng: random.Random) -> str:
    """Two or three syllables: several tokens that have to be copied from the prompt."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3))))


def any_name(rng: random.Random) -> str:
    """A common first name, or now and then an invented one."""
    if rng.random() < RANDOM_NAME_SHARE:
        return invented_word(rng).capitalize()
    return rng.choice(NAMES)


def two_names(rng: random.Random) -> tuple[str, str]:
    """Two different names."""
    first, second = any_name(rng), any_name(rng)
    return (first, second) if first != second else two_names(rng)
