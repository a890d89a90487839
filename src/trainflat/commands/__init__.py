"""What a user asks for, each a plain function of one module: run, check, diagnose, export, bench."""
