"""Who this process is to Serve."""

from __future__ import annotations

from ray import serve


def own_replica_id() -> str:
    """Serve's id of the replica that this process is."""
    return str(serve.get_replica_context().replica_id.unique_id)
