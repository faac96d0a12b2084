"""Labels of people with their pictures, additions to the memory, and the log of changes."""

from __future__ import annotations

from onspect.runtime.labels.audit import Change, verify_audit
from onspect.runtime.labels.export import export_labels
from onspect.runtime.labels.store import LabelStore, labels_path

__all__ = ["Change", "LabelStore", "export_labels", "labels_path", "verify_audit"]
