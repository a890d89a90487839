"""The command line: words in, words out. ``trainflat.cli.main`` holds the commands."""
