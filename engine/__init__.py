"""One replica's engine: models, decoding, caches, scheduling. Knows no server and no cluster."""
