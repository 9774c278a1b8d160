"""OpenAI's HTTP API: its request and response bodies and how they become the service's jobs."""
