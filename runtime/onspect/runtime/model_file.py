"""The name in 0.1.0 of `onspect.runtime.model.file`; importing it warns."""

import sys
import warnings

from onspect.runtime.model import file

warnings.warn("onspect.runtime.model_file has moved to onspect.runtime.model.file", DeprecationWarning, stacklevel=2)
sys.modules[__name__] = file
