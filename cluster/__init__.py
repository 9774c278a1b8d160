"""Ranks of a replica and local clusters on Ray."""
