"""JSON from a sentence, Python functions, stories and lists: the answer reuses the words of the prompt."""

from __future__ import annotations

import json
import random

from engine.evaluation.tasks.sample import QuestionAnswer
from engine.evaluation.tasks.words import (
    ADJECTIVES,
    ANIMALS,
    CITIES,
    COLORS,
    FRUIT_AND_WORDS,
    FUNCTION_NAMES,
    ITEMS,
    JOBS,
    PLACES,
    RANDOM_NAME_SHARE,
    THINGS,
    any_name,
    invented_word,
)


def _place_name(rng: random.Random) -> str:
    return invented_word(rng).capitalize() if rng.random() < RANDOM_NAME_SHARE else rng.choice(CITIES)


def _record(rng: random.Random) -> tuple[str, dict[str, str | int]]:
    name = any_name(rng)
    form = rng.randrange(6)
    if form == 0:
        age, city = rng.randint(3, 99), _place_name(rng)
        return f"{name} is {age} years old and lives in {city}.", {"name": name, "age": age, "city": city}
    if form == 1:
        job, city = rng.choice(JOBS), _place_name(rng)
        return f"{name} works as a {job} in {city}.", {"name": name, "job": job, "city": city}
    if form == 2:
        color, thing, price = rng.choice(COLORS), rng.choice(THINGS), rng.randint(2, 99)
        return f"The {color} {thing} costs {price} dollars.", {"item": thing, "color": color, "price": price}
    if form == 3:
        count, item = rng.randint(2, 99), rng.choice(ITEMS)
        return f"{name} bought {count} {item}.", {"name": name, "item": item, "count": count}
    if form == 4:
        animal, color = rng.choice(ANIMALS), rng.choice(COLORS)
        return f"{name} is a {color} {animal}.", {"name": name, "animal": animal, "color": color}
    age, job = rng.randint(18, 80), rng.choice(JOBS)
    return f"{name} is a {age} year old {job}.", {"name": name, "age": age, "job": job}


def json_record(rng: random.Random) -> QuestionAnswer:
    """A sentence as a flat JSON object."""
    sentence, record = _record(rng)
    frame = rng.choice(("Write as JSON: {}", "Turn into JSON: {}"))
    return QuestionAnswer(frame.format(sentence), json.dumps(record, ensure_ascii=False))


NUMBER_FUNCTIONS = (
    ("returns x plus {k}", "return x + {k}"),
    ("returns x minus {k}", "return x - {k}"),
    ("returns x times {k}", "return x * {k}"),
    ("returns x divided by {k}", "return x / {k}"),
    ("returns the remainder of x divided by {k}", "return x % {k}"),
    ("returns x to the power of {k}", "return x ** {k}"),
    ("checks if x is greater than {k}", "return x > {k}"),
    ("checks if x is less than {k}", "return x < {k}"),
    ("checks if x is equal to {k}", "return x == {k}"),
    ("checks if x is divisible by {k}", "return x % {k} == 0"),
    ("returns the larger of x and {k}", "return max(x, {k})"),
    ("returns the smaller of x and {k}", "return min(x, {k})"),
    ("returns the first {k} items of x", "return x[:{k}]"),
    ("repeats the text x {k} times", "return x * {k}"),
)
PLAIN_FUNCTIONS = (
    ("returns the square of x", "return x * x"),
    ("returns the length of x", "return len(x)"),
    ("returns the sum of the list x", "return sum(x)"),
    ("returns the largest item of the list x", "return max(x)"),
    ("returns the smallest item of the list x", "return min(x)"),
    ("returns the last item of x", "return x[-1]"),
    ("returns the first item of x", "return x[0]"),
    ("reverses x", "return x[::-1]"),
    ("sorts the list x", "return sorted(x)"),
    ("returns the absolute value of x", "return abs(x)"),
    ("checks if x is even", "return x % 2 == 0"),
    ("checks if x is odd", "return x % 2 == 1"),
    ("checks if x is negative", "return x < 0"),
    ("returns x in upper case", "return x.upper()"),
    ("returns x in lower case", "return x.lower()"),
)


def code(rng: random.Random) -> QuestionAnswer:
    """A Python function of one line."""
    name = invented_word(rng) if rng.random() < 0.3 else rng.choice(FUNCTION_NAMES)
    wish, body = rng.choice(NUMBER_FUNCTIONS) if rng.random() < 0.6 else rng.choice(PLAIN_FUNCTIONS)
    constant = rng.randint(2, 99)
    prompt = f"Write a Python function {name}(x) that {wish.format(k=constant)}."
    return QuestionAnswer(prompt, f"def {name}(x):\n    {body.format(k=constant)}")


STORIES = (
    (
        "who finds a {color} {thing} in the {place}",
        "{name} was a {adjective} {animal}. One day {name} went to the {place} and found a {color} {thing}. "
        "{name} took the {thing} home and was very happy.",
    ),
    (
        "who loses a {color} {thing} in the {place}",
        "{name} was a {adjective} {animal}. One day {name} lost a {color} {thing} in the {place}. "
        "A friend found the {thing} and gave it back to {name}.",
    ),
    (
        "who lives in the {place} and wants a {color} {thing}",
        "{name} was a {adjective} {animal} and lived in the {place}. {name} wanted a {color} {thing}. "
        "One day a friend gave {name} the {thing}.",
    ),
)


def story(rng: random.Random) -> QuestionAnswer:
    """A few sentences in which the facts of the prompt have to stay the same."""
    wish, text = rng.choice(STORIES)
    facts = {
        "name": any_name(rng),
        "adjective": rng.choice(ADJECTIVES),
        "animal": rng.choice(ANIMALS),
        "color": rng.choice(COLORS),
        "thing": rng.choice(THINGS),
        "place": rng.choice(PLACES),
    }
    hero = "{name} the {adjective} {animal}".format(**facts)
    return QuestionAnswer(f"Tell a story about {hero}, {wish.format(**facts)}.", text.format(**facts))


def list_operation(rng: random.Random) -> QuestionAnswer:
    """Reversing words, sorting numbers, and the extremes of a list."""
    form = rng.randrange(4)
    if form == 0:
        words = rng.sample(FRUIT_AND_WORDS, rng.randint(2, 4))
        return QuestionAnswer(f"Reverse the list: {', '.join(words)}", ", ".join(reversed(words)))
    numbers = rng.sample(range(1, 30), rng.randint(3, 4))
    text = ", ".join(map(str, numbers))
    if form == 1:
        return QuestionAnswer(f"Sort the numbers: {text}", ", ".join(map(str, sorted(numbers))))
    if form == 2:
        return QuestionAnswer(f"What is the largest of {text}?", f"The largest is {max(numbers)}.")
    return QuestionAnswer(f"What is the smallest of {text}?", f"The smallest is {min(numbers)}.")
