"""The settings of logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deployments.settings import Settings


class LogConfig(Settings):
    """How the application's processes log: ingress, router, engines and ``lacuna serve``."""

    log_format: Literal["text", "json"] = Field(default="text", description="json: one object per line.")
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lines below this level are left out."
    )
    log_prompts: bool = Field(
        default=False,
        description="Add prompts and completions to the line of each request, and the texts of exceptions, which may "
        "quote them. Off: no text of a client's or a model's is ever logged.",
    )

    def serve_options(self) -> dict[str, object]:
        """Serve's own settings for the same; requests are logged by the ingress alone."""
        encoding = "JSON" if self.log_format == "json" else "TEXT"
        return {"encoding": encoding, "log_level": self.level, "enable_access_log": False}
