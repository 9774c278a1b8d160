"""Offline measurements of the engine: replay of recorded reference runs."""
