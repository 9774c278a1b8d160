"""Logs of the application's processes: one line per event, as text or as JSON, without the texts of requests."""
