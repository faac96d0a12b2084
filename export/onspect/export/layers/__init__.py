"""Layers that an exported graph adds to a network."""
