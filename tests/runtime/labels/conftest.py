from __future__ import annotations

from ..teaching.conftest import base_file, parts, taught, taught_once

__all__ = ["base_file", "parts", "taught", "taught_once"]
