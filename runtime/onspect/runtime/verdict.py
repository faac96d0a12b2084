"""The name in 0.1.0 of `onspect.runtime.inspection.verdict`; importing it warns."""

from onspect.runtime.lazy import move

move(__name__, "onspect.runtime.inspection.verdict")
