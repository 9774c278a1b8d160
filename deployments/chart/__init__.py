"""The helm chart's values as types: what ``helm/lacuna/values.schema.json`` is made from."""
