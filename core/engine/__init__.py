"""An LLM inference engine whose every choice is a plugin."""
