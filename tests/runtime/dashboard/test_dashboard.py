from __future__ import annotations

import dataclasses
import gc
import http.client
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, ImageError, OutputError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.status import LineStatus, SourceState, ThresholdMove

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")

from onspect.runtime.dashboard import Dashboard
from onspect.runtime.dashboard.auth import Auth
from onspect.runtime.dashboard.http_server import parse_address
from onspect.runtime.dashboard.state import DashboardState

TOKEN = "a-long-enough-token"
GOOD, BAD = np.full((32, 32), 128, np.uint8), np.full((32, 32), 250, np.uint8)


class Line:
    """A line that only records its calls."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.undone = 0

    def set_threshold(self, score: float) -> float:
        if score <= 0:
            raise ChoiceError(f"the threshold cannot be {score}")
        self.told.append(score)
        return [0.0062, *self.told][-2]

    def undo_threshold(self) -> tuple[float, float]:
        self.undone += 1
        return [0.0062, *self.told][-1], 0.0062

    def swap(self, path: Path | str) -> None: ...

    def recipe(self, name: str) -> None: ...

    def stop(self) -> None: ...


class Answer:
    """A response: status, headers in lower case, body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks one dashboard as a browser would, or as one would not."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.port = int(dashboard.url.rstrip("/").rpartition(":")[2])
        self.cookie = ""

    def ask(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if self.cookie:
                sent["Cookie"] = self.cookie
            connection.request(method, path, body, sent)
            answer = Answer(connection.getresponse())
        finally:
            connection.close()
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def post(self, path: str, content: object, **headers: str) -> Answer:
        headers = {"Content_Type": "application/json", "Origin": f"http://127.0.0.1:{self.port}"} | headers
        return self.ask(path, method="POST", body=json.dumps(content).encode(), **headers)

    def part(self, path: str) -> Any:
        """Return the facts about a part in the header of its picture."""
        return json.loads(self.ask(path).headers["x-onspect-part"])

    def log_in(self, token: str = TOKEN) -> Answer:
        return self.post("/login", {"token": token})

    def begin_stream(self) -> int:
        """Return the status with which a stream of events begins, and go."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/events")
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    def next_event(self) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/events")
        try:
            return json.loads(connection.getresponse().readline().removeprefix(b"data: "))
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def open_streams(self, stack: ExitStack, count: int) -> list[socket.socket]:
        """Request events this number of times, and read only the beginning of the answer."""
        streams = [stack.enter_context(self.connect()) for _ in range(count)]
        for stream in streams:
            stream.sendall(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
            assert b" 200 " in stream.recv(100)
        return streams


@pytest.fixture
def inspector(calibrated: Path) -> Inspector:
    """Return the tiny model."""
    return Inspector(calibrated)


@pytest.fixture
def open_dashboard() -> Iterator[Callable[..., tuple[Dashboard, Client]]]:
    """Return a function that starts a dashboard; all are stopped in the end."""
    opened: list[Dashboard] = []

    def start(address: str = "127.0.0.1:0", **settings: Any) -> tuple[Dashboard, Client]:
        dashboard = Dashboard(address, **settings).__enter__()
        opened.append(dashboard)
        return dashboard, Client(dashboard)

    yield start
    for dashboard in opened:
        dashboard.__exit__()


@pytest.fixture(scope="module")
def plain() -> Iterator[Client]:
    """Ask a dashboard that shows nothing yet, shared by the tests that leave nothing behind in it."""
    with Dashboard("127.0.0.1:0") as dashboard:
        yield Client(dashboard)


@pytest.fixture
def shown(open_dashboard: Any, inspector: Inspector) -> tuple[Dashboard, Client]:
    """Return a dashboard with a token, which shows an ok part and after it an ng part."""
    dashboard, client = open_dashboard(token=TOKEN)
    dashboard.write(inspector.examine(GOOD, source="camera", index=0))
    dashboard.write(inspector.examine(BAD, source="camera", index=1))
    dashboard.report(status())
    return dashboard, client


def status(**facts: Any) -> LineStatus:
    moment = "2026-03-01T12:00:00.000Z"
    known = {"started": moment, "time": moment, "running": True, "model": "tiny", "recipe": None}
    return LineStatus(**(known | {"threshold": 0.0062, "review_from": None} | facts))


# Data of the page


def test_event_tells_status_verdicts_and_scores(shown: tuple[Dashboard, Client]) -> None:
    """The first event has the line's status, the latest part, the last reject, and every score of the strip."""
    event = shown[1].next_event()
    assert (event["status"]["model"], event["status"]["threshold"]) == ("tiny", 0.0062)
    assert [event[view]["verdict"] for view in ("latest", "rejected")] == ["ng", "ng"]
    assert [score[:2] for score in event["scores"]] == [[1, "ok"], [2, "ng"]]


def test_an_old_verdict_is_not_shown_as_now(inspector: Inspector) -> None:
    """Age makes the state waiting, without the part's number."""
    state = DashboardState(fade=-1.0)
    state.add(inspector.examine(GOOD, source="camera"))
    now = state.describe(0)["now"]
    assert (now["state"], now["source"], now["number"]) == ("waiting", "camera", None)


def test_first_word_is_about_now(shown: tuple[Dashboard, Client], inspector: Inspector) -> None:
    """The event says verdict, camera and number of one part; a lost camera makes it lost."""
    dashboard, client = shown
    now = client.next_event()["now"]
    assert (now["state"], now["source"], now["number"]) == ("ng", "camera", 2)
    sources = (SourceState("left", connected=True), SourceState("right", connected=False))
    dashboard.report(status(sources=sources))
    dashboard.write(inspector.examine(GOOD, source="left", index=2))
    now = client.next_event()["now"]
    assert (now["state"], now["source"], now["number"]) == ("lost", "right", None)


def test_latest_and_last_reject_are_two_views(shown: tuple[Dashboard, Client], inspector: Inspector) -> None:
    """After an ok part the last reject is still there, with its picture."""
    dashboard, client = shown
    dashboard.write(inspector.examine(GOOD, source="camera", index=2))
    for view, number in (("latest", 3), ("rejected", 2)):
        assert client.part(f"/picture?view={view}")["number"] == number


def test_picture_is_a_jpeg_with_or_without_heat(shown: tuple[Dashboard, Client]) -> None:
    """Heat and boxes change the picture; without them it is the camera's frame."""
    heat, plain = (shown[1].ask(f"/picture?view=rejected&heat={heat}") for heat in (1, 0))
    assert heat.headers["content-type"] == "image/jpeg"
    pictures = [cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR) for answer in (heat, plain)]
    assert np.ptp(pictures[1]) <= 2
    assert np.ptp(pictures[0]) > 50


def test_large_picture_is_sent_smaller(open_dashboard: Any, inspector: Inspector) -> None:
    """A page gets a smaller picture than the camera's, of the same shape."""
    dashboard, client = open_dashboard()
    dashboard.write(inspector.examine(np.full((2000, 3000), 250, np.uint8)))
    picture = cv2.imdecode(np.frombuffer(client.ask("/picture").body, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (640, 960, 3)


def test_picture_waits_for_a_newer_one(shown: tuple[Dashboard, Client], inspector: Inspector) -> None:
    """Who has the newest picture gets the next one when it comes, and nothing before."""
    dashboard, client = shown
    later = threading.Timer(0.3, lambda: dashboard.write(inspector.examine(GOOD, index=2)))
    later.start()
    assert client.part("/picture?after=2")["number"] == 3
    later.join()


def test_part_without_a_frame_has_no_picture_but_a_reason(open_dashboard: Any, inspector: Inspector) -> None:
    """A fault without a frame is reported with its reason, and its picture is empty, not an older one."""
    dashboard, client = open_dashboard()
    dashboard.write(inspector.examine(GOOD))
    dashboard.write(inspector.examine(ImageError("no frame came"), source="camera", index=1))
    answer = client.ask("/picture")
    assert (answer.status, answer.body) == (204, b"")
    assert json.loads(answer.headers["x-onspect-part"])["verdict"] == "fault"
    assert client.next_event()["latest"]["reason"] == "no frame came"


def test_rejects_are_listed_newest_first_with_their_pictures(
    shown: tuple[Dashboard, Client], inspector: Inspector
) -> None:
    """The gallery has the parts that were not ok, each with its picture."""
    dashboard, client = shown
    dashboard.write(inspector.examine(GOOD, index=2))
    time.sleep(0.25)  # pictures are kept of five rejects a second at most
    dashboard.write(inspector.examine(BAD, index=3))
    rejects = client.ask("/rejects").json()["rejects"]
    assert [reject["index"] for reject in rejects] == [3, 1]
    assert client.ask(rejects[0]["picture"]).headers["content-type"] == "image/jpeg"
    assert client.ask("/rejects/77").status == 404


def test_a_burst_of_faults_leaves_the_last_rejects(open_dashboard: Any, inspector: Inspector) -> None:
    """If hundreds of frames are faults, the rejects from before are still listed, with a few of the faults."""
    dashboard, client = open_dashboard()
    for index in range(303):
        dashboard.write(inspector.examine(BAD if index < 3 else ImageError("black"), index=index))
    verdicts = [reject["verdict"] for reject in client.ask("/rejects").json()["rejects"]]
    assert verdicts == ["fault"] * 8 + ["ng"] * 3


def test_hours_count_each_verdict(shown: tuple[Dashboard, Client]) -> None:
    """Without a database the hours are those of this run."""
    hours = shown[1].ask("/hours").json()["hours"]
    assert {name: sum(hour[name] for hour in hours) for name in ("ok", "ng", "review", "fault")} == {
        "ok": 1,
        "ng": 1,
        "review": 0,
        "fault": 0,
    }


def test_page_needs_nothing_from_elsewhere(plain: Client) -> None:
    """Every address in the page's files is on this server, and every file that it names is there."""
    files = (
        "dashboard.css",
        "dashboard.js",
        "session.js",
        "labels.js",
        "teach.js",
        "history",
        "history.js",
        "icon.svg",
    )
    for path in ("/", *(f"/{name}" for name in files)):
        answer = plain.ask(path)
        assert answer.status == 200
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text
        assert "//cdn" not in text


# Moving the threshold


def test_threshold_is_moved_with_the_token_and_recorded(
    shown: tuple[Dashboard, Client], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has who, when, from where, and the old and new value; the line gets the change."""
    monkeypatch.setattr(logging.getLogger("onspect"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("onspect"), "level", logging.WARNING)
    dashboard, client = shown
    line = Line()
    dashboard.attach(line)
    assert client.log_in().status == 200
    answer = client.post("/threshold", {"score": 0.01, "who": "Anna"})
    assert (answer.status, line.told) == (200, [0.01])
    record = next(entry.getMessage() for entry in caplog.records if "moved" in entry.getMessage())
    assert "from 0.0062 to 0.01 by 'Anna' at 20" in record
    assert record.endswith("from 127.0.0.1")
    assert client.next_event()["moved"] is None, "the line has not said yet that it holds"
    status = LineStatus("", "", True, "tiny@1", None, 0.01, None, moved=ThresholdMove(0.01, 0.0062, "tiny@1"))
    dashboard.report(status)
    assert client.next_event()["moved"]["who"] == "Anna"
    dashboard.report(dataclasses.replace(status, moved=None))
    assert client.next_event()["moved"] is None, "the move was dropped"


def test_a_move_is_taken_back_with_the_token(shown: tuple[Dashboard, Client]) -> None:
    """The undo needs token and name as the move does."""
    dashboard, client = shown
    line = Line()
    dashboard.attach(line)
    assert client.post("/threshold/undo", {"who": "Anna"}).status == 401
    client.log_in()
    assert client.post("/threshold/undo", {}).status == 422
    assert client.post("/threshold/undo", {"who": "Anna"}).json()["who"] == "Anna"
    assert line.undone == 1


def test_token_itself_is_enough_for_a_program(shown: tuple[Dashboard, Client]) -> None:
    """A script sends the token with the request."""
    dashboard, client = shown
    line = Line()
    dashboard.attach(line)
    answer = client.post("/threshold", {"score": 2, "who": "script"}, Authorization=f"Bearer {TOKEN}")
    assert (answer.status, line.told) == (200, [2.0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"score": "7", "who": "Anna"}, "give a number"),
        ({"score": True, "who": "Anna"}, "give a number"),
        ({"score": 1e999, "who": "Anna"}, "give a number"),
        ({"score": 7}, "give your name"),
        ({"score": 7, "who": "  "}, "give your name"),
        ({"score": 7, "who": "A" * 81}, "give your name"),
        ({"score": -1, "who": "Anna"}, "cannot be -1"),
    ],
)
def test_wrong_threshold_is_refused(shown: tuple[Dashboard, Client], content: object, words: str) -> None:
    """An invalid number, a missing name or an impossible value moves nothing and gives a reason."""
    dashboard, client = shown
    line = Line()
    dashboard.attach(line)
    client.log_in()
    answer = client.post("/threshold", content)
    assert answer.status == 422
    assert words in answer.json()["error"]
    assert line.told == []


def test_nothing_can_be_changed_without_a_token(open_dashboard: Any) -> None:
    """A dashboard that was started without a token shows and never changes; it says how to get one."""
    dashboard, client = open_dashboard()
    line = Line()
    dashboard.attach(line)
    assert client.post("/threshold", {"score": 1, "who": "Anna"}).status == 403
    assert "--dashboard-token" in client.log_in("").json()["error"]
    assert line.told == []


def test_who_has_not_logged_in_changes_nothing(shown: tuple[Dashboard, Client]) -> None:
    """On this computer, reading needs no token and changes do. After a logout no change is possible."""
    dashboard, client = shown
    line = Line()
    dashboard.attach(line)
    assert client.post("/threshold", {"score": 1, "who": "Anna"}).status == 401
    client.log_in()
    old = client.cookie
    client.post("/logout", {})
    client.cookie = old
    assert client.post("/threshold", {"score": 1, "who": "Anna"}).status == 401
    assert line.told == []


# Refused requests


@pytest.mark.slow
def test_wrong_token_is_refused_and_guessing_is_slowed(shown: tuple[Dashboard, Client]) -> None:
    """After five wrong tokens in a minute each further guess costs a pause that grows, and the pauses add up."""
    client = shown[1]
    assert [client.log_in(f"wrong-token-{number}").status for number in range(5)] == [401] * 5
    started = time.monotonic()
    assert [client.log_in(f"wrong-token-{number}").status for number in range(2)] == [401] * 2
    assert time.monotonic() - started >= 2.5
    answer = client.log_in("wrong-token-7")
    assert answer.status == 429
    assert 0 < int(answer.headers["retry-after"]) <= 30


@pytest.mark.slow
def test_wrong_tokens_do_not_lock_the_right_one_out(shown: tuple[Dashboard, Client]) -> None:
    """Who mistypes the token five times gets in with the right one, after a second."""
    client = shown[1]
    assert [client.log_in(f"wrong-token-{number}").status for number in range(5)] == [401] * 5
    started = time.monotonic()
    assert client.log_in().status == 200
    assert 0.5 <= time.monotonic() - started < 5.0
    assert client.log_in().status == 200


@pytest.mark.slow
def test_guesses_side_by_side_wait_one_by_one(shown: tuple[Dashboard, Client]) -> None:
    """Many guesses at a moment do not all wait the same second: one does, and the others are refused."""
    client = shown[1]
    for number in range(5):
        client.log_in(f"wrong-token-{number}")
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda number: Client(shown[0]).log_in(f"guess-number-{number}").status, range(8)))
    assert sorted(statuses) == [401, *[429] * 7]


def test_guesses_from_many_addresses_are_slowed_too() -> None:
    """One guess each from many addresses is no way around the brake, and its memory is bounded."""
    access = Auth(TOKEN)
    for number in range(2000):
        access.check("wrong", f"10.0.{number >> 8}.{number & 255}")
    assert 0 < access.wait_seconds("10.9.9.9") <= 1.0
    assert len(access._wrong) <= 1024


def test_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens meet only as digests of one length, through hmac.compare_digest."""
    import hmac

    compared: list[tuple[bytes, bytes]] = []

    def note(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", note)
    access = Auth(TOKEN)
    assert [access.check(token, "here") for token in ("", "a", TOKEN + "x", TOKEN)] == [False, False, False, True]
    assert {len(part) for pair in compared for part in pair} == {32}


def test_session_cookie_is_kept_from_scripts_and_other_sites(shown: tuple[Dashboard, Client]) -> None:
    """The cookie cannot be read by scripts and is not sent along from another site."""
    cookie = shown[1].log_in().headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie


def test_short_token_is_refused() -> None:
    """A token that can be guessed is refused at the start, without being repeated."""
    with pytest.raises(ChoiceError, match="6 characters") as caught:
        Dashboard("127.0.0.1:0", token="secret")
    assert "secret'" not in str(caught.value)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.168.1.5:8080", "[::]:0", "line3:8080"])
def test_other_computers_need_a_token(address: str) -> None:
    """An address that others can reach is refused at the start without a token."""
    with pytest.raises(ChoiceError, match="token"):
        Dashboard(address)


def test_where_others_can_reach_it_seeing_needs_the_token(open_dashboard: Any, inspector: Inspector) -> None:
    """The server gives no data of the line before the token; the page itself has none."""
    dashboard, client = open_dashboard("0.0.0.0:0", token=TOKEN)
    dashboard.write(inspector.examine(BAD))
    assert client.begin_stream() == 401
    for path in ("/picture", "/rejects", "/rejects/1", "/hours", "/evidence/ng/a.jpg"):
        assert client.ask(path).status == 401
    assert client.ask("/").status == 200
    session = client.ask("/session").json()
    assert (session["may_see"], session["may_change"], session["has_token"]) == (False, False, True)
    client.log_in()
    assert client.ask("/picture").status == 200


@pytest.mark.parametrize("address", ["8080", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", ":8080", "::1:8080", ""])
def test_wrong_address_is_named(address: str) -> None:
    """An invalid address is refused with an example."""
    with pytest.raises(ChoiceError, match="HOST:PORT"):
        parse_address(address)


def test_address_in_use_is_said_so(open_dashboard: Any) -> None:
    """Two lines cannot have one address; the second is reported at its start."""
    _, client = open_dashboard()
    with pytest.raises(OutputError, match=rf"127\.0\.0\.1:{client.port}.*another port"):
        Dashboard(f"127.0.0.1:{client.port}").__enter__()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site", "Origin": ""},
    ],
)
def test_other_sites_requests_are_refused(shown: tuple[Dashboard, Client], headers: dict[str, str]) -> None:
    """A page of another site cannot log in, change or read anything, even with the browser's session."""
    dashboard, client = shown
    line = Line()
    dashboard.attach(line)
    client.log_in()
    headers = {name: value for name, value in headers.items() if value}
    assert client.post("/threshold", {"score": 1, "who": "Anna"}, **headers).status == 403
    assert client.ask("/picture", **headers).status == 403
    assert line.told == []


def test_link_from_another_site_opens_the_page_only(plain: Client) -> None:
    """A link in a mail or wiki may lead to the page, and to nothing else."""
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert plain.ask("/", **link).status == 200
    assert plain.ask("/hours", **link).status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "["])
def test_strange_host_names_are_refused(plain: Client, host: str) -> None:
    """Another site's name that points to this computer (DNS rebinding) gets nothing, not even the page."""
    assert plain.ask("/", Host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8080", "192.168.1.5", socket.gethostname()])
def test_own_names_are_known(plain: Client, host: str) -> None:
    """Addresses, localhost and the computer's own name lead to the page."""
    assert plain.ask("/", Host=host).status == 200


def test_form_of_another_kind_is_refused(shown: tuple[Dashboard, Client]) -> None:
    """Only JSON is taken, which a plain form of another site cannot send."""
    answer = shown[1].post("/login", {"token": TOKEN}, Content_Type="application/x-www-form-urlencoded")
    assert answer.status == 415


def test_large_bodies_are_refused(shown: tuple[Dashboard, Client]) -> None:
    """A body beyond what the page sends is refused by its length, and one without a length at once."""
    client = shown[1]
    assert client.post("/login", {"token": "x" * 5000}).status == 413
    with client.connect() as connection:
        head = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert b" 413 " in connection.recv(100)


def test_large_heads_are_refused(plain: Client) -> None:
    """A request line without end is cut off."""
    with plain.connect() as connection:
        connection.sendall(b"GET /" + b"x" * 40_000)
        assert b" 400 " in connection.recv(100)


@pytest.mark.parametrize("body", [b"", b"[]", b"token", b'{"token": 7}', b"[" * 4000, b"\xff"])
def test_bodies_that_are_no_object_are_refused(shown: tuple[Dashboard, Client], body: bytes) -> None:
    """Anything but the expected JSON is refused, and the server continues."""
    client = shown[1]
    answer = client.ask("/login", method="POST", body=body, Content_Type="application/json")
    assert answer.status in (400, 401)
    assert client.ask("/").status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(plain: Client, method: str) -> None:
    """Only GET, HEAD and POST are known; no CORS preflight is ever granted."""
    answer = plain.ask("/threshold", method=method)
    assert answer.status == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("path", ["/", "/dashboard.js", "/events/", "/hours", "/no-such-page", "/rejects"])
def test_every_answer_has_safe_headers(plain: Client, path: str) -> None:
    """No answer may be framed, sniffed, kept, or run scripts from elsewhere; refusals too."""
    for headers in ({}, {"Origin": "http://evil.example"}):
        answer = plain.ask(path, **headers)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


# Evidence


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of evidence with one picture, beside private files."""
    tmp_path = tmp_path_factory.mktemp("evidence")
    folder = tmp_path / "evidence"
    (folder / "ng" / "2026-03-01").mkdir(parents=True)
    jpeg = cv2.imencode(".jpg", np.zeros((1000, 800, 3), np.uint8))[1].tobytes()
    (folder / "ng" / "2026-03-01" / "120000.123Z-camera-17.jpg").write_bytes(jpeg)
    (folder / "notes.txt").write_text("not a picture")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "text.jpg").write_text("not a JPEG")
    return folder


@pytest.fixture(scope="module")
def archive(evidence: Path) -> Iterator[Client]:
    """Ask a dashboard that has this evidence."""
    with Dashboard("127.0.0.1:0", evidence=evidence) as dashboard:
        yield Client(dashboard)


def test_evidence_is_shown_whole_and_small(archive: Client, evidence: Path) -> None:
    """A picture of evidence comes as it is, and for the gallery small."""
    path = "/evidence/ng/2026-03-01/120000.123Z-camera-17.jpg"
    assert archive.ask(path).body == (evidence / path.removeprefix("/evidence/")).read_bytes()
    small = cv2.imdecode(np.frombuffer(archive.ask(f"{path}?small=1").body, np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (480, 384, 3)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "..%2fsecret.jpg",
        "%2e%2e/secret.jpg",
        "ng/../../secret.jpg",
        "ng/%2e%2e/%2e%2e/secret.jpg",
        "..\\secret.jpg",
        "..%5csecret.jpg",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "C:/secret.jpg",
        "link.jpg",
        "notes.txt",
        "notes.txt%00.jpg",
        "ng",
        "",
        ".",
        "text.jpg?small=1",
        "no-such.jpg",
        "x" * 5000 + ".jpg",
    ],
)
def test_nothing_but_evidence_is_shown(archive: Client, name: str) -> None:
    """No way of writing a path leads out of the folder, or to anything in it that is not a picture."""
    answer = archive.ask(f"/evidence/{name}")
    assert answer.status == 404
    assert b"secret" not in answer.body


# Slow clients


def test_slow_clients_never_slow_the_line(open_dashboard: Any, inspector: Inspector) -> None:
    """With clients that open streams and never read, showing an inspection stays a matter of microseconds."""
    dashboard, client = open_dashboard()
    inspection = inspector.examine(GOOD)
    durations = []
    with ExitStack() as stack:
        client.open_streams(stack, 8)
        for _ in range(3000):
            started = time.perf_counter()
            dashboard.write(inspection)
            durations.append(time.perf_counter() - started)
    assert sum(durations) < 3


def test_picture_is_made_once_for_all_clients(shown: tuple[Dashboard, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten clients that want the same picture cost one encoding."""
    from onspect.runtime.dashboard import renderer

    made: list[object] = []
    develop = renderer._render
    monkeypatch.setattr(renderer, "_render", lambda *arguments: made.append(arguments) or develop(*arguments))
    assert {shown[1].ask("/picture").status for _ in range(10)} == {200}
    assert len(made) == 1


def test_streams_are_bounded(open_dashboard: Any) -> None:
    """One page too many is refused, and when one closes the next is accepted."""
    _, client = open_dashboard(watchers=2)
    with ExitStack() as stack:
        client.open_streams(stack, 2)
        assert client.begin_stream() == 503
    wait_until(lambda: client.begin_stream() == 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: 127", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /"]
)
def test_silent_connections_are_closed(open_dashboard: Any, sent: bytes) -> None:
    """A client that connects and sends nothing, or half a request, does not keep its place."""
    _, client = open_dashboard(look=0.1)
    with client.connect() as connection:
        connection.sendall(sent)
        connection.settimeout(5)
        read_to_end(connection)


def test_client_that_does_not_read_is_cut_off(open_dashboard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose reader stops ends, and its place is free again."""
    numbers = itertools.count(1)  # events so large that they soon fill what the system keeps for a reader
    monkeypatch.setattr(
        DashboardState,
        "describe",
        lambda board, after: {"number": next(numbers), "status": None, "words": "x" * 500_000},
    )
    _, client = open_dashboard(watchers=1, tick=0.001, look=0.2)
    with client.connect() as lazy:
        lazy.sendall(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n\r\n".encode())
        assert lazy.recv(12) == b"HTTP/1.1 200"  # it has the place
        assert client.begin_stream() == 503
        wait_until(lambda: client.begin_stream() == 200)


def test_connections_are_bounded(open_dashboard: Any) -> None:
    """Idle connections make room for a new request, and the number of open ones is limited."""
    dashboard, client = open_dashboard()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(client.connect())
            if len(dashboard._server._server.server_state.connections) > 66:
                raise AssertionError("too many are open")
        assert client.ask("/").status == 200


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_half_open_connections_leave_descriptors_to_cameras_and_sinks(
    open_dashboard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With few file descriptors and a thousand connections, files can be opened, and asyncio has nothing to say."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull, "rb") as file:  # noqa: PTH123 - for its number
        few = file.fileno() + 90
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    code = (
        "import socket, sys, time\n"
        "held = [socket.create_connection(('127.0.0.1', int(sys.argv[1]))) for _ in range(1000)]\n"
        "print('there', flush=True)\ntime.sleep(60)\n"
    )
    try:
        _, client = open_dashboard()
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
        command = [
            sys.executable,
            "-c",
            f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({hard}, {hard}))\n{code}",
        ]
        with subprocess.Popen([*command, str(client.port)], stdout=subprocess.PIPE) as flood:
            assert flood.stdout is not None
            assert flood.stdout.readline() == b"there\n"
            with ExitStack() as stack:
                for _ in range(40):
                    stack.enter_context(open(os.devnull, "rb"))  # noqa: PTH123 - as a camera or a sink would
            flood.kill()
        wait_until(lambda: client.ask("/").status == 200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.messages == []


def test_closing_ends_streams_and_threads(inspector: Inspector) -> None:
    """With a page open, closing takes a moment and leaves no thread behind."""
    before = set(threading.enumerate())
    with Dashboard("127.0.0.1:0") as dashboard:
        dashboard.write(inspector.examine(BAD))
        stack = ExitStack()
        Client(dashboard).open_streams(stack, 1)
        started = time.monotonic()
    assert time.monotonic() - started < 3
    assert set(threading.enumerate()) <= before  # a thread of an earlier test may end meanwhile
    stack.close()


@pytest.mark.slow
def test_closing_cuts_off_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves the server with much to send keeps no socket open after closing."""
    numbers = itertools.count(1)
    monkeypatch.setattr(
        DashboardState,
        "describe",
        lambda board, after: {"number": next(numbers), "status": None, "words": "x" * 5_000_000},
    )
    with Dashboard("127.0.0.1:0") as dashboard, ExitStack() as stack:
        Client(dashboard).open_streams(stack, 1)
        time.sleep(0.5)
        dashboard.__exit__()
        gc.collect()  # here a socket that was left open would be told


def wait_until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def read_to_end(connection: socket.socket) -> None:
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
