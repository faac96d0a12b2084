"""The loop beside the line: source to Inspector to sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from onspect.runtime.inspector import Inspection, Inspector
from onspect.runtime.sinks import Sink
from onspect.runtime.sources import Capture


def inspect_source(inspector: Inspector, source: Iterable[Capture]) -> Iterator[Inspection]:
    """Judge each frame of a source, in order; raises UncalibratedError where the model has no threshold."""
    for index, capture in enumerate(source):
        yield inspector.examine_batch([capture.frame], sources=[capture.source], first_index=index)[0]


def deliver(inspections: Iterable[Inspection], sinks: Sequence[Sink]) -> Counter[str]:
    """Hand each inspection to every sink and return how many there were of each verdict."""
    counts: Counter[str] = Counter()
    for inspection in inspections:
        counts[inspection.verdict.verdict] += 1
        for sink in sinks:
            sink.write(inspection)
    return counts
