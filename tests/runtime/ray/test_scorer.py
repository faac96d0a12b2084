from __future__ import annotations

from onspect.runtime.ray.judge import DEATHS, Attempts, _explain


def test_image_on_which_workers_die_is_found() -> None:
    """An image counts as deadly once a second worker has died on it; one death may have another cause."""
    attempts = Attempts()
    assert attempts.begin(3) == (1, [])
    for attempt in range(2, 2 + DEATHS):
        assert attempts.begin(3) == (attempt, [])
        attempts.judging(3, 299)
        attempts.judging(3, 300)
    assert attempts.begin(3) == (2 + DEATHS, [300])
    assert attempts.begin(4) == (1, [300])


def test_work_that_ended_well_blames_no_image() -> None:
    """A partition that is judged anew after it was done, since a machine was lost with the result, blames no image."""
    attempts = Attempts()
    for attempt in range(1, 5):
        assert attempts.begin(0) == (attempt, [])
        attempts.judging(0, 99)
        attempts.end(0)


def test_missing_token_is_told() -> None:
    """Where a cluster asks for a token, that is said, however deep in the causes of Ray's error it stands."""
    error = ConnectionError("Failed to connect")
    error.__cause__ = RuntimeError("no GCS")
    assert _explain(error) == "Failed to connect"
    error.__cause__.__context__ = OSError("RPC error: InvalidAuthToken: ...")
    assert "RAY_AUTH_MODE=token" in _explain(error)
