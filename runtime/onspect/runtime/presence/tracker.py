"""The state machine of presence: each part gets a number, and is decided once.

A part is absent, entering (in view, but not whole yet), present (whole in the region) or leaving (cut by the region's
edge after it was whole). The tracker gets the blobs of each frame and knows no pixels.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from onspect.runtime.presence.blobs import Blob, Side

State = Literal["entering", "present", "leaving"]
"""State of a part in view; a part that is not in view is absent and has no track."""

_SHARP = 0.9  # share of the usual sharpness with which a part is judged at once
_HISTORY = 31  # number of parts that give the usual area, speed and sharpness
_ENOUGH = 3  # number of parts after which the usual area and sharpness are known
_TOUCHING = 1.6  # multiple of the usual area from which a blob is more than one part
_PATIENCE = 1.0  # seconds to wait for a sharper frame of a whole part
_PAUSE = 5.0  # multiple of the usual interval from which frames are missing and not late
_MISSED = 2  # frames without a blob after which a part is gone
_FLICKER = 0.5  # seconds for which a part at the edge may vanish and come back
_REACH = 0.5  # share of its length by which a part may move unseen and is still recognised

Token = TypeVar("Token")
Look = Callable[[Blob], tuple[bool, float] | None]
"""Returns for a whole blob whether its window is inside the frame, and its sharpness; None if two parts are in it."""


@dataclass(frozen=True)
class Decision(Generic[Token]):
    """The decision about one part; each part gets exactly one."""

    part: int
    """Number of the part, from 1, in the order in which parts came into view."""

    frame: Token
    """The frame to judge; for a fault, the last frame that showed the part."""

    blob: Blob
    """Place of the part in that frame."""

    reason: str | None = None
    """The reason why the part cannot be judged; None if it can."""


@dataclass
class Track(Generic[Token]):
    """A part in view."""

    blob: Blob
    """Its last blob."""
    time: float
    """Time of the last blob in seconds."""
    frame: Token
    """Frame of the last blob."""
    entered: Side | None
    """Side through which it came; None if it appeared inside."""
    state: State = "entering"
    """Its state."""
    number: int | None = None
    """Its number, 1 or more; None before it counts as a part."""
    velocity: tuple[float, float] | None = None
    """Motion along x and y in pixels per second; None before it is known."""
    sightings: int = 1
    """Number of frames that showed it."""
    missed: int = 0
    """Number of the last frames that did not show it."""
    touches: bool = False
    """Whether its blob contains several parts now."""
    touched: bool = False
    """Whether another part has touched it or was in its window."""
    decided: bool = False
    """Whether it is decided."""
    whole_since: float | None = None
    """Time in seconds of its first whole frame; None before."""
    best: tuple[bool, float, Token, Blob] | None = None
    """The best frame until now: whether its window is inside, sharpness, frame and blob; None before the first."""
    sharpest: float = 0.0
    """Largest sharpness in its whole frames; 0 before the first."""


@dataclass(frozen=True)
class _Gone(Generic[Token]):
    """A part that left the view, and may come back."""

    track: Track[Token]
    side: Side
    time: float


class Tracker(Generic[Token]):
    """Follow the parts of one camera from frame to frame, and decide for each part which frame is judged.

    A part is decided in its first whole frame that is at least 0.9 times as sharp as usual. Without such a frame it is
    decided in its sharpest one, when it begins to leave or after one second. The usual sharpness is the median of the
    last 31 parts; the first three parts are decided when they begin to leave.

    Parameters
    ----------
    velocity
        Usual motion of the belt along x and y in pixels per second; None if it is unknown.
    area
        Usual area of a part in square pixels; None for the median of the parts until now.
    sharpness
        Usual sharpness of a part; None for the median of the parts until now.
    gap
        Smallest distance between two parts in pixels; it allows longer pauses between frames.
    remember
        Seconds, at least 0.5, in which a part that left is recognised if it comes back through the same side.
    """

    def __init__(
        self,
        *,
        velocity: tuple[float, float] | None = None,
        area: float | None = None,
        sharpness: float | None = None,
        gap: float = 0.0,
        remember: float = 0.5,
    ) -> None:
        self.tracks: list[Track[Token]] = []
        self.parts = 0
        """Parts numbered so far."""
        self._given_area, self._given_sharpness = area, sharpness
        self._gap, self._remember = gap, max(remember, _FLICKER)
        self._velocity = velocity
        self._fastest = 0.0 if velocity is None else math.hypot(*velocity)
        self._areas: deque[float] = deque(maxlen=_HISTORY)
        self._bests: deque[float] = deque(maxlen=_HISTORY)
        self._lengths: deque[float] = deque(maxlen=_HISTORY)
        self._gone: deque[_Gone[Token]] = deque(maxlen=64)
        self._time: float | None = None
        self._steps: deque[float] = deque(maxlen=_HISTORY)
        self._clock = 0.0

    @property
    def area(self) -> float | None:
        """Usual area of a part in square pixels; None while it is unknown."""
        return self._given_area or (statistics.median(self._areas) if len(self._areas) >= _ENOUGH else None)

    @property
    def sharpness(self) -> float | None:
        """Usual sharpness of a part; None while it is unknown."""
        return self._given_sharpness or (statistics.median(self._bests) if len(self._bests) >= _ENOUGH else None)

    def held(self) -> list[Token]:
        """Return the frames that an undecided part still needs.

        Returns
        -------
        list[Token]
            The frames.
        """
        frames = []
        waiting = [gone.track for gone in self._gone if not gone.track.decided]
        for track in (*self.tracks, *waiting):
            if not track.decided:
                frames.append(track.frame)
                if track.best is not None:
                    frames.append(track.best[2])
        return frames

    def update(self, blobs: Sequence[Blob], time: float, frame: Token, look: Look) -> list[Decision[Token]]:
        """Process the blobs of the next frame.

        Parameters
        ----------
        blobs
            Places that differ from the background, each large enough for a part.
        time
            Time of the frame in seconds; it grows from frame to frame.
        frame
            The frame, as decisions return it.
        look
            Returns for a whole blob whether its window is inside the frame, and its sharpness; None if another part is
            in the window.

        Returns
        -------
        list[Decision[Token]]
            The parts that are decided by this frame.
        """
        decisions: list[Decision[Token]] = []
        step = self._take_step(time)
        if step > self._longest_step():
            decisions += self._close_all("the camera was blind for too long to follow the part")
        self._clock += step
        time = self._clock
        matched = self._match(blobs, time, frame)
        for track in self.tracks:
            if id(track) in matched:
                decisions += self._observe(track, time, look)
        still = []
        for track in self.tracks:
            if track.missed >= _MISSED or (track.missed and track.sightings == 1 and track.number is None):
                decisions += self._leave(track, time)
            else:
                still.append(track)
        self.tracks = still
        decisions += self._forget(time)
        return decisions

    def flush(self) -> list[Decision[Token]]:
        """Decide the parts that are still in view, when no more frames come.

        Returns
        -------
        list[Decision[Token]]
            The decisions.
        """
        decisions = self._close_all("the line ended before the part was whole in view")
        return decisions + self._forget(math.inf)

    def _take_step(self, time: float) -> float:
        """Return the seconds since the last frame, as a multiple of the usual interval.

        Drivers and networks deliver frames late and then in bursts, while the belt moves evenly.
        """
        step = 0.0 if self._time is None else time - self._time
        self._time = time
        if len(self._steps) < _ENOUGH:
            self._steps.extend([step] * (step > 0.0))
            return step
        usual = statistics.fmean(self._steps)
        if step < _PAUSE * usual:
            self._steps.append(step)
        return usual * max(1, round(step / usual))

    def _longest_step(self) -> float:
        """Return the longest time between two frames over which parts can be recognised, in seconds."""
        length = statistics.median(self._lengths) if self._lengths else None
        known = 1.0 if length is None or self._fastest <= 0.0 else _REACH * (length + self._gap) / self._fastest
        usual = statistics.fmean(self._steps) if self._steps else 0.0
        return max(known, 2.5 * usual, 0.05)

    def _match(self, blobs: Sequence[Blob], time: float, frame: Token) -> set[int]:
        """Assign each blob to its tracks or to a new one; return the ids of the tracks that were seen."""
        seen: set[int] = set()
        owners: list[list[Track[Token]]] = [[] for _ in blobs]
        free = list(self.tracks)
        places = {id(track): self._predict(track, time) for track in free}
        for number, blob in enumerate(blobs):
            inside = [track for track in free if blob.contains(*places[id(track)])]
            owners[number] = inside
            free = [track for track in free if track not in inside]
        for distance, number, track in sorted(
            ((blob.distance(*places[id(track)]), number, track) for number, blob in enumerate(blobs) for track in free),
            key=lambda item: item[0],
        ):
            reach = 0.5 * max(blobs[number].length, track.blob.length)
            if distance <= reach and not owners[number] and track in free:
                owners[number] = [track]
                free.remove(track)
        for track in free:
            track.missed += 1
        for blob, tracks in zip(blobs, owners, strict=True):
            count = max(len(tracks), self._count_parts(blob), 1)
            tracks += [self._begin(blob, time, frame) for _ in range(count - len(tracks))]
            pieces = [blob] if count == 1 else self._split(blob, tracks, places)
            for track, piece in zip(tracks, pieces, strict=True):
                self._move(track, piece, time, frame, touches=count > 1)
                seen.add(id(track))
        return seen

    def _count_parts(self, blob: Blob) -> int:
        usual = self.area
        return 1 if usual is None or blob.area < _TOUCHING * usual else math.floor(blob.area / usual + 0.4)

    def _split(self, blob: Blob, tracks: list[Track[Token]], places: dict[int, tuple[float, float]]) -> list[Blob]:
        """Return equal pieces of a blob for its tracks: known parts in their order, new ones where they came in."""
        across = blob.width >= blob.height
        start, side = (blob.left, blob.width) if across else (blob.top, blob.height)
        axis = 0 if across else 1
        entry = math.inf if {"right", "bottom"} & blob.cut and not {"left", "top"} & blob.cut else -math.inf
        if not blob.cut and self._velocity is not None:
            entry = math.copysign(math.inf, -self._velocity[axis])
        order = sorted(range(len(tracks)), key=lambda place: places.get(id(tracks[place]), (entry, entry))[axis])
        pieces = [blob] * len(tracks)
        for slot, place in enumerate(order):
            pieces[place] = blob.piece(start + side * (slot + 0.5) / len(tracks), len(tracks), across=across)
        return pieces

    def _predict(self, track: Track[Token], time: float) -> tuple[float, float]:
        x, y = track.velocity or self._velocity or (0.0, 0.0)
        step = time - track.time
        return track.blob.x + x * step, track.blob.y + y * step

    def _begin(self, blob: Blob, time: float, frame: Token) -> Track[Token]:
        side = next(iter(sorted(blob.cut)), None)
        returned = self._find_return(blob)
        if returned is not None:
            self._gone.remove(returned)
            track = returned.track
            track.state, track.missed, track.velocity, track.whole_since = "entering", 0, None, None
        else:
            track = Track(blob, time, frame, side)
        self.tracks.append(track)
        return track

    def _find_return(self, blob: Blob) -> _Gone[Token] | None:
        """Return the part that left last through the side through which a blob comes in, if its place fits."""
        for gone in reversed(self._gone):
            along = gone.side in ("left", "right")
            apart = abs(gone.track.blob.y - blob.y) if along else abs(gone.track.blob.x - blob.x)
            if gone.side in blob.cut and apart <= 0.5 * gone.track.blob.length:
                return gone
        return None

    def _move(self, track: Track[Token], blob: Blob, time: float, frame: Token, *, touches: bool) -> None:
        step = time - track.time
        if step > 0.0:
            if not (touches or track.touches or blob.cut or track.blob.cut):
                track.velocity = (blob.x - track.blob.x) / step, (blob.y - track.blob.y) / step
                self._learn_velocity(track.velocity)
            else:
                track.velocity = None
            track.sightings += 1
        track.blob, track.time, track.frame, track.missed = blob, time, frame, 0
        track.touches = touches
        track.touched |= touches

    def _learn_velocity(self, velocity: tuple[float, float]) -> None:
        old = self._velocity or velocity
        self._velocity = 0.7 * old[0] + 0.3 * velocity[0], 0.7 * old[1] + 0.3 * velocity[1]
        self._fastest = max(0.999 * self._fastest, math.hypot(*velocity))

    def _observe(self, track: Track[Token], time: float, look: Look) -> list[Decision[Token]]:
        """Update the state of a part, and decide the part if this is its frame."""
        blob = track.blob
        if track.number is None and (track.sightings > 1 or not blob.cut):
            self.parts += 1
            track.number = self.parts
        if blob.cut or track.touches:
            track.state = "entering" if track.whole_since is None else "leaving"
            return self._decide_best(track) if track.state == "leaving" and blob.cut else []
        track.state = "present"
        if track.whole_since is None:
            track.whole_since = time
            if not track.decided:
                self._areas.append(blob.area)
                self._lengths.append(blob.length)
        seen = look(blob)
        if seen is None:
            track.touched = True
            return []
        fits, sharpness = seen
        track.sharpest = max(track.sharpest, sharpness)
        if track.decided:
            return []
        if track.best is None or (fits, sharpness) > track.best[:2]:
            track.best = (fits, sharpness, track.frame, blob)
        usual = self.sharpness
        sharp = usual is not None and fits and sharpness >= _SHARP * usual
        if sharp or time - track.whole_since >= _PATIENCE:
            return self._decide_best(track)
        return []

    def _decide_best(self, track: Track[Token]) -> list[Decision[Token]]:
        if track.decided or track.best is None:
            return []
        track.decided = True
        assert track.number is not None
        return [Decision(track.number, track.best[2], track.best[3])]

    def _leave(self, track: Track[Token], time: float) -> list[Decision[Token]]:
        """Close the track of a part that is no longer in view."""
        if track.number is None:
            usual = self.area
            if usual is None or track.blob.area < 0.5 * usual:
                return []  # seen once and small: not a part
            self.parts += 1
            track.number = self.parts
        if track.sharpest > 0.0:
            self._bests.append(track.sharpest)
            track.sharpest = 0.0
        side = self._side_of(track)
        decisions = self._decide_best(track)
        if side is not None:
            if len(self._gone) == self._gone.maxlen:
                decisions += self._give_up(self._gone.popleft().track)
            self._gone.append(_Gone(track, side, time))
        retreats = side is not None and side == track.entered and not track.touched
        return decisions if retreats else decisions + self._give_up(track)

    def _side_of(self, track: Track[Token]) -> Side | None:
        """Return the side through which a part left: the last one that cut it and towards which it moved."""
        cut = sorted(track.blob.cut)
        if len(cut) < 2 or track.entered not in cut:
            return next(iter(cut), None)
        return next((side for side in cut if side != track.entered), None)

    def _give_up(self, track: Track[Token], reason: str | None = None) -> list[Decision[Token]]:
        """Return the fault of a part that had no usable frame; empty if it is decided."""
        if track.decided or track.number is None:
            return []
        track.decided = True
        if reason is None:
            reason = (
                "another part touched it, or was inside its window, in each frame that showed it whole"
                if track.touched
                else "the part was never whole in view: the region's edge cut it in each frame"
            )
        return [Decision(track.number, track.frame, track.blob, reason)]

    def _close_all(self, reason: str) -> list[Decision[Token]]:
        decisions: list[Decision[Token]] = []
        for track in self.tracks:
            decisions += self._decide_best(track) or self._give_up(track, reason)
        self.tracks = []
        return decisions

    def _forget(self, time: float) -> list[Decision[Token]]:
        """Give up the parts that left and did not come back in time."""
        decisions: list[Decision[Token]] = []
        while self._gone and time - self._gone[0].time > self._remember:
            decisions += self._give_up(self._gone.popleft().track)
        return decisions
