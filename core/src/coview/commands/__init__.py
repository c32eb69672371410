"""Building blocks of commands: coview's own, and those of plugins.

The command line imports commands; no command imports the command line.
"""
