"""The runs behind docs/experiments.md. Each script continues where it was stopped."""
