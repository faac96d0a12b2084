"""The model file: its fields, reading and writing it, and the session that runs it."""
