"""What the published decoding loops take beside the engine: the same weights, the same tokens, the same minutes."""
