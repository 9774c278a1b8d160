"""Facts, gaps in known sequences, and small talk: closed sets, asked for in several ways."""

from __future__ import annotations

import random

from engine.evaluation.tasks.sample import QuestionAnswer
from engine.evaluation.tasks.words import any_name

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Austria": "Vienna", "Norway": "Oslo",
    "Peru": "Lima", "Egypt": "Cairo", "Japan": "Tokyo", "Greece": "Athens", "Ireland": "Dublin", "Portugal": "Lisbon",
    "Poland": "Warsaw", "Cuba": "Havana", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Hungary": "Budapest", "Turkey": "Ankara", "Canada": "Ottawa", "China": "Beijing", "Russia": "Moscow",
    "Kenya": "Nairobi", "Chile": "Santiago", "Belgium": "Brussels",
}  # fmt: skip
OPPOSITES = (
    "hot cold|big small|fast slow|old new|up down|day night|happy sad|full empty|open closed|hard soft|light dark|"
    "rich poor|early late|strong weak|wet dry|loud quiet|clean dirty|long short|left right|near far"
)
YOUNG = "dog puppy|cat kitten|cow calf|horse foal|sheep lamb|hen chick|duck duckling|bear cub|goat kid|pig piglet"
COLORS_OF = "snow white|grass green|blood red|coal black|a lemon yellow|the sky blue|chocolate brown|a carrot orange"
LEGS = {"dog": 4, "cat": 4, "spider": 8, "ant": 6, "bird": 2, "horse": 4, "bee": 6, "cow": 4, "crab": 10, "fly": 6}
SEQUENCES = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "January February March April May June July August September October November December",
    "one two three four five six seven eight nine ten",
    "A B C D E F G H I J K L M",
)


def _pairs(text: str) -> list[tuple[str, str]]:
    split = (pair.rsplit(" ", 1) for pair in text.split("|"))
    return [(left, right) for left, right in split]


def _capital(rng: random.Random) -> QuestionAnswer:
    country, city = rng.choice(tuple(CAPITALS.items()))
    frames = (
        "What is the capital of {}?", "Name the capital of {}.", "Which city is the capital of {}?",
        "Tell me the capital of {}.", "Do you know the capital of {}?",
    )  # fmt: skip
    return QuestionAnswer(rng.choice(frames).format(country), f"The capital of {country} is {city}.")


def _opposite(rng: random.Random) -> QuestionAnswer:
    left, right = rng.choice(_pairs(OPPOSITES))
    if rng.random() < 0.5:
        left, right = right, left
    frames = ("What is the opposite of {}?", "Name the opposite of {}.", "Tell me the opposite of {}.")
    return QuestionAnswer(rng.choice(frames).format(left), f"The opposite of {left} is {right}.")


def _young(rng: random.Random) -> QuestionAnswer:
    animal, young = rng.choice(_pairs(YOUNG))
    frames = ("What is a young {} called?", "What do you call a young {}?", "Name a young {}.")
    return QuestionAnswer(rng.choice(frames).format(animal), f"A young {animal} is called a {young}.")


def _color(rng: random.Random) -> QuestionAnswer:
    thing, color = rng.choice(_pairs(COLORS_OF))
    frames = ("What color is {}?", "Tell me the color of {}.", "Which color is {}?")
    return QuestionAnswer(rng.choice(frames).format(thing), f"{thing[0].upper()}{thing[1:]} is {color}.")


def _legs(rng: random.Random) -> QuestionAnswer:
    animal, legs = rng.choice(tuple(LEGS.items()))
    article = "an" if animal[0] in "aeiou" else "a"
    frames = ("How many legs does {} have?", "How many legs has {}?", "Tell me how many legs {} has.")
    prompt = rng.choice(frames).format(f"{article} {animal}")
    return QuestionAnswer(prompt, f"{article.capitalize()} {animal} has {legs} legs.")


def fact(rng: random.Random) -> QuestionAnswer:
    """Capitals, opposites, young animals, colours and legs."""
    make = rng.choices((_capital, _opposite, _young, _color, _legs), (4, 3, 1, 1, 1))[0]
    return make(rng)


def fill_gap(rng: random.Random) -> QuestionAnswer:
    """The missing member of a sequence of five, or of three words."""
    if rng.random() < 0.5:
        start, step, gap = rng.randint(1, 20), rng.randint(1, 10), rng.randint(1, 3)
        members = [str(start + step * index) for index in range(5)]
        kind = "number"
    else:
        known = rng.choice(SEQUENCES).split()
        start, gap = rng.randrange(len(known) - 2), rng.randint(0, 2)
        members = known[start : start + 3]
        kind = "word"
    missing, members[gap] = members[gap], "_"
    return QuestionAnswer(f"Fill the gap: {', '.join(members)}", f"The missing {kind} is {missing}.")


GREETINGS = (
    "Hello, my name is {}.",
    "Hi, I am {}.",
    "Hello, I am {}.",
    "Good morning, my name is {}.",
    "Hey, I am {}.",
)
SMALL_TALK = (
    ("Hello", "Hello! How can I help you?"),
    ("Hello!", "Hello! How can I help you?"),
    ("Hi", "Hello! How can I help you?"),
    ("Who are you?", "I am Lacuna, a small diffusion language model."),
    ("What are you?", "I am Lacuna, a small diffusion language model."),
    ("What is your name?", "My name is Lacuna."),
    ("What can you do?", "I can answer small questions, write JSON, code and short stories."),
    ("How are you?", "I am fine, thank you."),
    ("Thank you", "You are welcome!"),
    ("Thank you!", "You are welcome!"),
    ("Goodbye", "Goodbye! See you soon."),
    ("Bye", "Goodbye! See you soon."),
)


def chat(rng: random.Random) -> QuestionAnswer:
    """Greetings by name, and a few fixed lines."""
    if rng.random() < 0.4:
        return QuestionAnswer(*rng.choice(SMALL_TALK))
    name = any_name(rng)
    return QuestionAnswer(rng.choice(GREETINGS).format(name), f"Hello {name}! How can I help you?")
