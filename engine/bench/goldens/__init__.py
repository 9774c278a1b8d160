"""Replay of recorded runs of the reference implementations through the engine.

A folder of recordings has one of a few kinds, recognised by its contents (``folders.py``); each kind has one file here
that reads its cases, says how the engine expresses them, and compares. ``replay.py`` runs them.
"""
