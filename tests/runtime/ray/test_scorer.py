from __future__ import annotations

from onspect.runtime.ray.judge import DEATHS, Retries, _explain


def test_image_on_which_workers_die_is_found() -> None:
    """An image counts as deadly once a second worker has died on it; one death may have another cause."""
    attempts = Retries()
    assert attempts.begin(3) == (1, [])
    for attempt in range(2, 2 + DEATHS):
        assert attempts.begin(3) == (attempt, [])
        attempts.judging(3, 299)
        attempts.judging(3, 300)
    assert attempts.begin(3) == (2 + DEATHS, [300])
    assert attempts.begin(4) == (1, [300])


def test_work_that_ended_well_blames_no_image() -> None:
    """A partition that is judged again after it was done, because the result was lost, blames no image."""
    attempts = Retries()
    for attempt in range(1, 5):
        assert attempts.begin(0) == (attempt, [])
        attempts.judging(0, 99)
        attempts.end(0)


def test_missing_token_is_told() -> None:
    """If a cluster needs a token, the message says so, however deep it is in the causes of Ray's error."""
    error = ConnectionError("Failed to connect")
    error.__cause__ = RuntimeError("no GCS")
    assert _explain(error) == "Failed to connect"
    error.__cause__.__context__ = OSError("RPC error: InvalidAuthToken: ...")
    assert "RAY_AUTH_MODE=token" in _explain(error)
