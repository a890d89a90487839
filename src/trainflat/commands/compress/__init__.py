"""Makes a fine-tuned model smaller and faster, in minutes and without training it."""

from trainflat.commands.compress.compress import compress

__all__ = ["compress"]
