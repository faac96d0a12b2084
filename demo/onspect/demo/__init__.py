"""The whole job on parts that onspect draws itself: train, export, calibrate, evaluate, score.

The names below are the drawn parts, for examples and tests: `draw_part`, `draw_dataset` and `make_belt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onspect.runtime.lazy import public_names

if TYPE_CHECKING:
    from onspect.demo.belt import Belt as Belt
    from onspect.demo.belt import make_belt as make_belt
    from onspect.demo.parts import DEFECT_KINDS as DEFECT_KINDS
    from onspect.demo.parts import draw_dataset as draw_dataset
    from onspect.demo.parts import draw_part as draw_part

_HOMES = {
    "belt": "Belt make_belt",
    "parts": "DEFECT_KINDS draw_dataset draw_part",
}
"""The modules and their public names; a test compares them with the imports above, which are for type checkers."""

__all__, __getattr__, __dir__ = public_names(__name__, _HOMES)
