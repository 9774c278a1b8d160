"""Exact-match evaluation of strategies over held-out tasks."""
