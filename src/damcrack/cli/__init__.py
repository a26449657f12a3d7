"""Commands: arguments in, calls of the rooms below."""
