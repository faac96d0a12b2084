"""Text that export prints about a file in a lower precision, one fact a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onspect.export.precision.search import LayerChoice, Quantized
from onspect.runtime.model.card import describe_agreement
from onspect.runtime.text import format_facts, format_table


def describe_quantized(reduced: Quantized) -> str:
    """Return a table with the precision of each layer and the gain of the whole file.

    Parameters
    ----------
    reduced
        Result of the quantisation.

    Returns
    -------
    str
        Several lines of text.
    """
    precision = reduced.info.provenance.precision
    lines = _describe_layers(reduced.layers, precision) if precision == "int8" else []
    count = sum(choice.reduced for choice in reduced.layers)
    facts = [
        ("layers", f"{count} of {len(reduced.layers)} in {precision}, with {reduced.share:.0%} of the weights"),
        ("verdicts", describe_agreement(reduced.agreement)),
        ("speed", f"{reduced.speed:.2f} times that of float32 here (onnxruntime, CPU, one image, one thread)"),
    ]
    return "\n".join([*lines, *format_facts(facts, 10)])


def _describe_layers(layers: Sequence[LayerChoice], precision: str) -> list[str]:
    rows = [("layer", "kind", "weights", "harm", "precision")]
    for choice in layers:
        harm = "ruin" if math.isinf(choice.harm) else "-" if math.isnan(choice.harm) else f"{choice.harm:.2%}"
        kept = precision if choice.reduced else "float32"
        rows.append((choice.layer.name, choice.layer.kind, f"{choice.layer.weights:,}", harm, kept))
    return [*format_table(rows, "<<>><"), ""]
