"""Implements the commands, each a plain function: run, check, diagnose, export, bench."""
