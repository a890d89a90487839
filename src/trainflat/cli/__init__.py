"""The command line: words in, words out. ``commands`` holds the commands, ``main`` exit codes and errors."""
