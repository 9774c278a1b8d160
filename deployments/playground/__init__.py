"""The browser playground at ``/playground``: static files that speak the server's public HTTP API."""
