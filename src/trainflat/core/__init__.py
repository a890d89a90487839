"""Holds what every room stands on: errors, files, registries, schedules, timing; nothing here knows a model."""
