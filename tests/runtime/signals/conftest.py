"""Lines that a PLC triggers."""

from ..line.conftest import keeper, models, no_thread_is_left, noisy, running, unchecked

__all__ = ["keeper", "models", "no_thread_is_left", "noisy", "running", "unchecked"]
