"""What it costs that several ranks compute one model: time and bytes of their exchange."""
