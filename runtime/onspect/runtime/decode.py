"""The name in 0.1.0 of `onspect.runtime.images.decode`; importing it warns."""

import sys
import warnings

from onspect.runtime.images import decode

warnings.warn("onspect.runtime.decode has moved to onspect.runtime.images.decode", DeprecationWarning, stacklevel=2)
sys.modules[__name__] = decode
