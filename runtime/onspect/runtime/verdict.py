"""The name in 0.1.0 of `onspect.runtime.inspection.verdict`; importing it warns."""

import sys
import warnings

from onspect.runtime.inspection import verdict

warnings.warn(
    "onspect.runtime.verdict has moved to onspect.runtime.inspection.verdict", DeprecationWarning, stacklevel=2
)
sys.modules[__name__] = verdict
