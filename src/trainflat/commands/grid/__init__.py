"""Runs grids: recipes crossed with axes."""
