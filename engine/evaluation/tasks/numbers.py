"""Arithmetic, word problems and unit conversion. Steps are written out; the result follows ``####``."""

from __future__ import annotations

import random

from engine.evaluation.tasks.sample import QuestionAnswer
from engine.evaluation.tasks.words import ITEMS, any_name, two_names


def _solved(steps: str, result: int) -> str:
    return f"{steps}\n#### {result}"


def _split(left: int, sign: str, right: int) -> tuple[str, int]:
    """Add or subtract the tens of ``right`` first, then its ones, one written step each."""
    direction = 1 if sign == "+" else -1
    steps: list[str] = []
    for part in (right // 10 * 10, right % 10):
        if part:
            result = left + direction * part
            steps.append(f"{left} {sign} {part} = {result}")
            left = result
    return ", ".join(steps) + ".", left


def _sum_or_difference(rng: random.Random) -> tuple[str, str]:
    left, right = rng.randint(2, 99), rng.randint(1, 99)
    sign = rng.choice("+-")
    if sign == "-" and left < right:
        left, right = right, left
    steps, result = _split(left, sign, right)
    return f"{left} {sign} {right}", _solved(steps, result)


def _product(rng: random.Random) -> tuple[str, str]:
    left, right = rng.randint(2, 12), rng.randint(2, 12)
    return f"{left} * {right}", _solved(f"{left} * {right} = {left * right}.", left * right)


def _sum_with_product(rng: random.Random) -> tuple[str, str]:
    left, right, extra = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9)
    product = left * right
    steps = f"{left} * {right} = {product}, {product} + {extra} = {product + extra}."
    return f"{extra} + {left} * {right}", _solved(steps, product + extra)


def arithmetic(rng: random.Random) -> QuestionAnswer:
    """Sums, differences, products, and a sum with a product."""
    make = rng.choices((_sum_or_difference, _product, _sum_with_product), (5, 2, 2))[0]
    expression, answer = make(rng)
    frame = rng.choice(("What is {}?", "Calculate {}.", "Compute {}.", "How much is {}?"))
    return QuestionAnswer(frame.format(expression), answer)


def _gain_or_loss(rng: random.Random) -> QuestionAnswer:
    (name, friend), item = two_names(rng), rng.choice(ITEMS)
    have, change = rng.randint(10, 90), rng.randint(2, 9)
    if rng.random() < 0.5:
        verb = rng.choice(("buys", "finds", "gets"))
        prompt = f"{name} has {have} {item} and {verb} {change} more. How many {item} does {name} have now?"
        return QuestionAnswer(prompt, _solved(f"{name} has {have} + {change} = {have + change} {item}.", have + change))
    prompt = f"{name} has {have} {item} and gives {change} to {friend}. How many {item} does {name} have left?"
    return QuestionAnswer(prompt, _solved(f"{name} has {have} - {change} = {have - change} {item}.", have - change))


def _price(rng: random.Random) -> QuestionAnswer:
    item, price, count = rng.choice(ITEMS), rng.randint(2, 12), rng.randint(2, 9)
    prompt = f"{item.capitalize()} cost {price} dollars each. How much do {count} {item} cost?"
    return QuestionAnswer(
        prompt, _solved(f"{count} {item} cost {count} * {price} = {count * price} dollars.", count * price)
    )


def _share(rng: random.Random) -> QuestionAnswer:
    name, item, friends, each = any_name(rng), rng.choice(ITEMS), rng.randint(2, 9), rng.randint(2, 12)
    total = friends * each
    prompt = f"{name} shares {total} {item} among {friends} friends. How many {item} does each friend get?"
    return QuestionAnswer(prompt, _solved(f"Each friend gets {total} / {friends} = {each} {item}.", each))


def _two_steps(rng: random.Random) -> QuestionAnswer:
    name, item = any_name(rng), rng.choice(ITEMS)
    have, more, less = rng.randint(10, 80), rng.randint(2, 9), rng.randint(2, 9)
    middle = have + more
    prompt = f"{name} has {have} {item}, buys {more} more and loses {less}. How many {item} does {name} have now?"
    steps = f"{name} has {have} + {more} = {middle} {item}. Then {middle} - {less} = {middle - less} {item}."
    return QuestionAnswer(prompt, _solved(steps, middle - less))


def _boxes(rng: random.Random) -> QuestionAnswer:
    name, item = any_name(rng), rng.choice(ITEMS)
    boxes, each, extra = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    packed = boxes * each
    prompt = (
        f"{name} has {boxes} boxes with {each} {item} each and {extra} more {item}. How many {item} does {name} have?"
    )
    steps = f"The boxes hold {boxes} * {each} = {packed} {item}. Then {packed} + {extra} = {packed + extra} {item}."
    return QuestionAnswer(prompt, _solved(steps, packed + extra))


def word_problem(rng: random.Random) -> QuestionAnswer:
    """One or two steps about people and things."""
    make = rng.choices((_gain_or_loss, _price, _share, _two_steps, _boxes), (3, 2, 2, 2, 2))[0]
    return make(rng)


UNITS = (
    ("minute", "seconds", 60),
    ("hour", "minutes", 60),
    ("day", "hours", 24),
    ("week", "days", 7),
    ("year", "months", 12),
    ("meter", "centimeters", 100),
    ("kilometer", "meters", 1000),
    ("kilogram", "grams", 1000),
    ("liter", "milliliters", 1000),
    ("centimeter", "millimeters", 10),
    ("foot", "inches", 12),
    ("dollar", "cents", 100),
    ("dozen", "eggs", 12),
)
IRREGULAR_PLURALS = {"foot": "feet", "dozen": "dozen"}


def conversion(rng: random.Random) -> QuestionAnswer:
    """A whole number of one unit in a smaller one."""
    unit, small, factor = rng.choice(UNITS)
    count = rng.randint(2, 12) if factor % 10 or factor == 60 else rng.randint(2, 50)
    units = IRREGULAR_PLURALS.get(unit, unit + "s")
    frame = rng.choice(("How many {small} are {count} {units}?", "Convert {count} {units} to {small}."))
    prompt = frame.format(small=small, count=count, units=units)
    steps = f"One {unit} is {factor} {small}, so {count} {units} are {count} * {factor} = {count * factor} {small}."
    return QuestionAnswer(prompt, _solved(steps, count * factor))
