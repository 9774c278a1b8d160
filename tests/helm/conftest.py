"""Ray's modules warn about deprecated pydantic while they are imported; warnings are errors for this project only."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401
