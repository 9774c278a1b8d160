"""Attention backends: how stored K/V are attended."""
