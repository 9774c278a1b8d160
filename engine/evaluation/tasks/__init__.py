"""Kinds of task with a known answer: generators of prompts, one canonical answer each.

Every generator is a pure function of a ``random.Random``. The answer follows from the prompt alone, so a completion can
be checked exactly, and committing several tokens at once need not mix two phrasings.
"""
