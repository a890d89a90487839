"""Train flat, then compress."""
