"""The model card, as plain text."""

from __future__ import annotations

from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import (
    Agreement,
    Appearance,
    Bfloat16Margin,
    Calibration,
    Memory,
    ModelInfo,
    Network,
    Preprocess,
    Provenance,
    Threshold,
)
from onspect.runtime.text import format_facts


def describe(file: ModelFile) -> str:
    """Return the model card as text, one fact a line, readable without colour.

    Parameters
    ----------
    file
        The model file.

    Returns
    -------
    str
        The lines, each with the name of its fact.
    """
    return "\n".join(format_facts(list_facts(file), 13))


def summarize(info: ModelInfo) -> str:
    """Return the ten most important facts about a model.

    Parameters
    ----------
    info
        The metadata of the model file.

    Returns
    -------
    str
        One fact a line.
    """
    source, calibration, network, memory = info.provenance, info.calibration, info.network, info.memory
    counts = {} if calibration is None else calibration.counts
    made_of = _describe_memory(memory)[:1] or _describe_network(network)[:1]
    area = calibration and calibration.auroc
    facts = [
        ("model", info.name),
        (made_of[0] if made_of else ("network", "none")),
        ("input", _describe_input(info.preprocess)),
        ("frames", _describe_limits(info.preprocess)),
        ("score", info.score.name),
        ("threshold", "none yet" if info.threshold is None else describe_threshold(info.threshold)),
        ("chosen for", "nothing yet" if calibration is None else calibration.policy),
        ("chosen on", ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no images yet"),
        ("AUROC", "unknown: no defects to measure on" if area is None else f"{area:.4f} on these images"),
        ("trained on", f"{source.training_images} images of {source.data!r}, {source.trained}"),
    ]
    return "\n".join(format_facts(facts, 13))


def list_facts(file: ModelFile) -> list[tuple[str, str]]:
    """Return the facts of the model card.

    Parameters
    ----------
    file
        The model file.

    Returns
    -------
    list[tuple[str, str]]
        Name and text of each fact, in the order of the card. A name is empty where a fact continues the one
        above.
    """
    info = file.info
    network, source = info.network, info.provenance
    smoothing = f", smoothed by {info.score.smoothing:g} px" if info.score.smoothing else ""
    masked = f", of the {info.score.inspected:.2%} of the image that a mask leaves" if info.score.inspected < 1 else ""
    facts = [
        ("model", info.name),
        (
            "file",
            f"{file.path} ({len(file.data) / 1e6:.2f} MB, sha256 {file.sha256[:12]}, format {info.format_version})",
        ),
        *_describe_memory(info.memory),
        *_describe_network(network),
        ("input", _describe_input(info.preprocess)),
        ("frames", _describe_limits(info.preprocess)),
        *_describe_crop(info.preprocess),
        *_describe_appearance(info.appearance),
        ("score", f"{info.score.name}{smoothing}{masked}" + (f" ({info.score.why})" if info.score.why else "")),
    ]
    if info.threshold is None:
        facts.append(("threshold", f"none yet: run 'onspect calibrate {file.path} DATA'"))
    else:
        facts.append(("threshold", describe_threshold(info.threshold)))
    if info.calibration is not None:
        facts += _describe_calibration(info.calibration)
    if info.bfloat16 is not None:
        facts.append(("bfloat16", describe_margin(info.bfloat16, valid=info.valid_margin is not None)))
    if info.history:
        earlier = ", ".join(f"{stamp.threshold.score:.6g}" for stamp in info.history)
        facts.append(("before", f"{earlier} ('onspect threshold {file.path} --undo' goes back)"))
    if source.parity_images:
        facts += _describe_export(source)
    else:  # a taught file was neither trained nor exported
        facts.append(("seed", str(source.seed)))
    facts += [
        *_describe_images(info),
        ("made with", ", ".join(f"{name} {version}" for name, version in source.versions.items())),
    ]
    return facts


def _describe_memory(memory: Memory | None) -> list[tuple[str, str]]:
    if memory is None:
        return []
    last = memory.lessons[-1]
    rows = last.whole_vectors if memory.by_whole else last.vectors
    what = "whole images" if memory.by_whole else "places"
    facts = [
        ("memory", f"{rows} vectors of {what} from {memory.pictures} good pictures, features of {memory.backbone}")
    ]
    facts += [
        ("taught" if number == 0 else "", f"{lesson.time}: {lesson.pictures} pictures of {lesson.data!r}")
        for number, lesson in enumerate(memory.lessons)
    ]
    return facts


def _describe_network(network: Network | None) -> list[tuple[str, str]]:
    if network is None:
        return []
    layers = " ".join(f"{filters}/{stride}" for filters, stride in zip(network.filters, network.strides, strict=True))
    reduced = f", at 1/{network.reduction} of the working size" if network.reduction > 1 else ""
    encoder = f"filters/stride {layers}, hidden {network.hidden}{reduced}"
    if network.backbone:
        encoder = f"of the features of {network.backbone} at each place, hidden {network.hidden}"
    facts = [
        ("network", f"{network.variant.upper()}, {network.parameters:,} parameters, latent {network.latent}"),
        ("encoder", encoder),
    ]
    if network.head:
        facts.append(("head", f"filters {' '.join(map(str, network.head))}, trained on synthetic defects"))
    if network.tiling:
        facts.append(("tiles", f"{network.tiling.describe()}, stitched"))
    return facts


def describe_threshold(threshold: Threshold) -> str:
    """Return a threshold as text.

    Parameters
    ----------
    threshold
        The threshold.

    Returns
    -------
    str
        The scores from which a part is ``ng`` or for review, and what counts as a region.
    """
    words = f"ng at score >= {threshold.score:.6g}"
    if threshold.review is not None:
        words += f", review from {threshold.review:.6g}"
    words += f", regions at {threshold.map:.6g}"
    return words + (f" of {threshold.area} working pixels or more" if threshold.area else "")


def describe_margin(margin: Bfloat16Margin, *, valid: bool = True) -> str:
    """Return a margin of bfloat16 as text.

    Parameters
    ----------
    margin
        The margin.
    valid
        Whether it was measured on the graph of the file.

    Returns
    -------
    str
        The differences of scores with their evidence.
    """
    words = (
        f"moves scores by {margin.low:.3g} to {margin.high:.3g} ({margin.share:.0%} of pictures, measured on "
        f"{margin.pictures} of {margin.data!r}, OpenVINO {margin.openvino}, {margin.time})"
    )
    return words if valid else f"{words}; not valid: the graph has changed since"


def describe_agreement(agreement: Agreement) -> str:
    """Describe how many verdicts differ from those of the reference.

    Parameters
    ----------
    agreement
        The comparison with the reference.

    Returns
    -------
    str
        One sentence without its full stop.
    """
    return (
        f"{agreement.flips} of {agreement.images} verdicts differ from {agreement.reference} after recalibration, "
        f"{agreement.carried} with its threshold kept; scores moved by {agreement.shift:.2%} of their spread"
    )


def _describe_images(info: ModelInfo) -> list[tuple[str, str]]:
    """Return the known fingerprints of the sets of images behind the file."""
    sets = [("training", info.provenance.training_images, info.provenance.training_fingerprint)]
    calibration = info.calibration
    if calibration is not None:
        sets.append(("calibration", sum(calibration.counts.values()), calibration.images))
        if calibration.held_back is not None:
            sets.append(("test", calibration.held_back.images, calibration.held_back.fingerprint))
    known = [f"{digits} of {count} {name} images" for name, count, digits in sets if digits]
    return [("fingerprints" if first else "", words) for first, words in zip([True, *[False] * 2], known, strict=False)]


def _describe_export(source: Provenance) -> list[tuple[str, str]]:
    parity = f"{source.parity_images} scores within {source.parity:.1e} of the trained model's"
    facts = [
        ("trained", f"{source.trained} on {source.training_images} images of {source.data!r}, seed {source.seed}"),
        ("exported", f"{source.exported}, {parity}" + (" in float32" if source.precision != "fp32" else "")),
    ]
    if source.precision != "fp32":
        count = len(source.reduced_layers)
        facts.append(("precision", f"{source.precision} in {count} of {count + len(source.float_layers)} layers"))
    if source.agreement is not None:
        facts.append(("verdicts", describe_agreement(source.agreement)))
    return facts


def _describe_input(preprocess: Preprocess) -> str:
    colour = "mono" if preprocess.channels == 1 else "colour (BGR)"
    size = f"{preprocess.width} x {preprocess.height} pixels"
    if preprocess.keep_aspect:
        size = f"about {size}; each frame keeps its aspect ratio"
    return f"{size}, {colour}, 16-bit white at {preprocess.white_level}"


def _describe_crop(preprocess: Preprocess) -> list[tuple[str, str]]:
    region, align = preprocess.region, preprocess.align
    if region is None:
        return []
    return [("region", region.describe())] + ([] if align is None else [("aligned", align.describe())])


def _describe_appearance(appearance: Appearance | None) -> list[tuple[str, str]]:
    if appearance is None:
        return []
    spans = {"brightness": appearance.brightness, "sharpness": appearance.sharpness}
    return [(name, f"{low:.4g} to {high:.4g} in the training images") for name, (low, high) in spans.items()]


def _describe_limits(preprocess: Preprocess) -> str:
    limits = preprocess.source
    channels = " or ".join(str(count) for count in preprocess.accepted_channels)
    sides = [
        f"{low} px {side}" if low == high else f"{low} to {high} px {side}"
        for side, span in (("wide", limits.width), ("high", limits.height))
        if span is not None
        for low, high in [span]
    ]
    return f"{channels} channel{'s' * (channels != '1')}, {', '.join(sides) or 'of any size'}"


def _describe_calibration(calibration: Calibration) -> list[tuple[str, str]]:
    counts = ", ".join(f"{count} {kind}" for kind, count in calibration.counts.items())
    facts = [("calibrated", f"{calibration.policy}, on {calibration.data!r} ({counts}), {calibration.time}")]
    if calibration.auroc is not None and calibration.aupr is not None:
        facts.append(("metrics", f"AUROC {calibration.auroc:.4f}, AUPR {calibration.aupr:.4f} on these images"))
    defects = "no defects to measure on"
    if calibration.true_ng + calibration.false_ok + calibration.review_defective:
        defects = f"{calibration.true_ng} defects caught, {calibration.false_ok} missed"
    good = f"{calibration.false_ng} good rejected, {calibration.true_ok} good passed"
    facts.append(("confusion", f"{defects}, {good}"))
    if calibration.review_good or calibration.review_defective:
        facts.append(("for review", f"{calibration.review_defective} defects, {calibration.review_good} good"))
    return facts
