"""What commands are made of: coview's own, and those that plugins bring.

The command line imports commands; no command needs the command line.
"""
