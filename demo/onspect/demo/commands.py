"""."""
COMMANDS = ()
