"""``python -m deployments.chart``: the chart's generated files, and a check of values before they are installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deployments.chart.check import check_values
from deployments.chart.schema import stale, write
from engine.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.chart", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="bring values.schema.json and files/ up to date")
    action.add_argument("--check", action="store_true", help="fail where they are not")
    action.add_argument("--values", type=Path, nargs="+", metavar="FILE", help="check these values, as for helm -f")
    given = parser.parse_args(arguments)
    try:
        if given.values:
            models = check_values(given.values).app.models
            print(f"The values are right; served models: {', '.join(model.id for model in models)}")
            return 0
        found = write() if given.write else stale()
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        return 1
    for path in found:
        print(f"wrote {path}" if given.write else f"{path} is stale: run python -m deployments.chart --write")
    return 0 if given.write else bool(found)


if __name__ == "__main__":
    sys.exit(main())
