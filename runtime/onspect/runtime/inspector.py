"""The name in 0.1.0 of `onspect.runtime.inspection.inspector`; importing it warns."""

import sys
import warnings

from onspect.runtime.inspection import inspector

warnings.warn(
    "onspect.runtime.inspector has moved to onspect.runtime.inspection.inspector", DeprecationWarning, stacklevel=2
)
sys.modules[__name__] = inspector
