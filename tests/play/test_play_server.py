"""The server of the pages: who is let in, what is too much, and that it ends."""

import contextlib
import http.client
import itertools
import json
import socket
import threading
import time

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.play import server as servers
from fastscalar.play.graphs import Graphs
from fastscalar.play.page import Page
from fastscalar.play.room import Room
from fastscalar.play.samples import Samples
from fastscalar.play.training import Trainer

LONG = 200  # seconds: more than a busy machine needs for anything here


def digits(train=400, test=100):
    (X, y), (X_test, y_test) = fs.datasets.synthetic_digits(train, test)
    return Samples(X.reshape(-1, 784) / 255, y, X_test.reshape(-1, 784) / 255, y_test, "synthetic digits")


@pytest.fixture(scope="module")
def page():
    with Page(Room(Graphs(), Trainer(fs.MLP(784, [8, 10], seed=0), digits(), fs.cross_entropy))) as page:
        yield page


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


def request(page, method, path, body=None, headers=None, *, host=None):
    """As a client sends it that sets nothing by itself but the Host."""
    connection = http.client.HTTPConnection("127.0.0.1", page._server.port, timeout=LONG)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        hosts = [f"127.0.0.1:{page._server.port}"] if host is None else host
        for one in hosts:
            connection.putheader("Host", one)
        headers = dict(headers or {})
        if body is not None:
            headers.setdefault("Content-Length", str(len(body)))
            headers.setdefault("Content-Type", "application/json")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        if body is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was refused before it was read
                connection.send(body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def ask(page, name, **message):
    return request(page, "POST", f"/{page._server.token}/api/{name}", json.dumps(message).encode())


def root(page):
    return f"/{page._server.token}/"


# --- who is let in ---


def test_the_page_and_its_parts(page):
    index = request(page, "GET", root(page))
    assert index.status == 200
    assert b"fastscalar" in index.body
    for name in ("style.css", *fs.play.page.SCRIPTS, "icon.svg"):
        assert request(page, "GET", root(page) + name).status == 200, name
    assert request(page, "GET", root(page)[:-1]).headers["Location"] == root(page)
    policy = index.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert index.headers["Referrer-Policy"] == "no-referrer"
    assert index.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", [
    "/", "/index.html", "/x/", "/x/api/hello", "/%2e%2e/", "//", "/../", "/api/hello", "/favicon.ico",
])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_without_the_token(page, path, method):
    for guess in (path, path.replace("x", page._server.token[:-1]), path.replace("x", page._server.token + "x")):
        answer = request(page, method, guess, b"{}" if method == "POST" else None)
        assert answer.status in (400, 404)
        assert page._server.token.encode() not in answer.body


@pytest.mark.parametrize("host", [
    [], ["evil.example"], ["127.0.0.1"], ["127.0.0.1:1"], ["localhost"], ["127.0.0.1:{0}", "evil.example"],
    ["evil.example", "127.0.0.1:{0}"], ["127.0.0.1:{0}.evil.example"], ["[::1]:{0}"], ["0.0.0.0:{0}"], [""],
])
def test_other_hosts_are_refused(page, host):
    """A name that an attacker points at 127.0.0.1 makes his page and ours one origin: the Host shows it."""
    hosts = [one.format(page._server.port) for one in host]
    for method, path in (("GET", root(page)), ("POST", root(page) + "api/hello")):
        assert request(page, method, path, b"{}" if method == "POST" else None, host=hosts).status == 403


def test_both_names_of_this_machine_are_answered(page):
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        assert request(page, "GET", root(page), host=[f"{name}:{page._server.port}"]).status == 200


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://127.0.0.1:{0}", "http://127.0.0.1",
                                    "http://127.0.0.1:1", "http://localhost:{0}.evil.example", "file://", ""])
def test_other_origins_are_refused(page, origin):
    origin = origin.format(page._server.port)
    answer = request(page, "POST", root(page) + "api/train", b'{"do": "start"}', {"Origin": origin})
    assert answer.status == 403
    assert ask(page, "news", seen=-1).json["state"] == "paused"


def test_our_own_origin_is_answered(page):
    for name in ("127.0.0.1", "localhost"):
        origin = f"http://{name}:{page._server.port}"
        assert request(page, "POST", root(page) + "api/hello", b"{}", {"Origin": origin}).status == 200


@pytest.mark.parametrize(("site", "dest", "path", "status"), [
    ("none", "document", "", 200), ("same-origin", "script", "app.js", 200), ("cross-site", "document", "", 200),
    ("cross-site", "iframe", "", 403), ("cross-site", "script", "app.js", 403), ("same-site", "image", "icon.svg", 403),
    ("cross-site", "document", "model.npz", 403), ("cross-site", "empty", "", 403),
])
def test_what_browsers_say_of_who_asks(page, site, dest, path, status):
    """A link may lead to the page (who has it knows the token); nothing else of another site's gets anything."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}
    assert request(page, "GET", root(page) + path, headers=headers).status == status


@pytest.mark.parametrize(("site", "dest", "path", "status"), [
    ("cross-site", "iframe", "", 200), ("same-site", "iframe", "", 200), ("cross-site", "iframe", "model.npz", 403),
    ("cross-site", "empty", "", 403), ("cross-site", "script", "app.js", 403), ("same-origin", "empty", "", 200),
])
def test_a_notebook_may_put_the_page_into_a_frame_and_nothing_else(site, dest, path, status):
    with Page(Room(Graphs()), framed=True) as page:
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}
        assert request(page, "GET", root(page) + path, headers=headers).status == status
        answer = request(page, "POST", root(page) + "api/hello", b"{}", {**headers, "Origin": "http://localhost:8888"})
        assert answer.status == 403


def test_only_the_loopback_interface_listens(page):
    assert page._server._http.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["../server.py", "..%2fserver.py", "static/app.js", "/etc/passwd", "app.js/", "x.py"])
def test_files_come_from_a_table(page, path):
    assert request(page, "GET", root(page) + path).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "CONNECT", "TRACE", "XXX"])
def test_other_methods_do_nothing(page, method):
    assert request(page, method, root(page) + "api/hello").status == 501


# --- what is too much, or no sense ---


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff\xfe", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 60_000,
    b'{"a":' * 10_000, b"{}{}", b"\0" * 100,
])
def test_malformed_messages_are_refused(page, body):
    answer = request(page, "POST", root(page) + "api/hello", body)
    assert answer.status == 400
    assert "JSON" in answer.json["error"]


@pytest.mark.parametrize(("headers", "status"), [
    ({"Content-Length": str(servers.LIMIT + 1)}, 413), ({"Content-Length": "9" * 400}, 413),
    ({"Content-Length": "-1"}, 411), ({"Content-Length": "x"}, 411), ({"Content-Length": "\xb2"}, 411),
    ({"Transfer-Encoding": "chunked"}, 411), ({"Content-Type": "text/plain"}, 415),
    ({"Content-Type": "application/x-www-form-urlencoded"}, 415), ({"X": "y" * 70_000}, 431),
])
def test_huge_and_unsized_messages_are_refused_before_they_are_read(page, headers, status):
    assert request(page, "POST", root(page) + "api/hello", b"{}", headers).status == status


def test_the_largest_message_that_is_read(page):
    body = b'{"a": "' + b"x" * (servers.LIMIT - 9) + b'"}'
    assert len(body) == servers.LIMIT
    assert request(page, "POST", root(page) + "api/hello", body).status == 200


@pytest.mark.parametrize("name", ["", "x", "hello/", "hello/x", "__init__", "call", "../hello", "h" * 5000])
def test_unknown_calls(page, name):
    assert ask(page, name).status == 404


NONSENSE = [None, True, False, -1, 0, 1, 10, 1.5, 1e308, 2**70, "", "x", "0", "AAAA", [], [1], {}, {"a": 1}, "\ud800"]
KEYS = ("pixels", "score", "label", "seen", "points", "generation", "do", "lr", "hidden", "batch_size", "optimizer",
        "graph", "sample", "box", "at", "x")


@pytest.mark.parametrize("name", ["hello", "graph", "inside", "train", "set", "weights", "mistakes", "read", "teach"])
def test_nonsense_is_an_answer_of_one_line(page, name):
    """Every call with every kind of value under every key: refused with a reason, or obeyed, never an error of ours."""
    fitting = {"graph": {"graph": "hand"}, "inside": {"graph": "hand", "box": 0}, "read": {"pixels": ink()},
               "teach": {"pixels": ink(), "label": 1}}.get(name, {})
    connection = http.client.HTTPConnection("127.0.0.1", page._server.port, timeout=LONG)
    with contextlib.closing(connection):
        for key in KEYS:
            for value in NONSENSE:
                if name == "set" and (key, value) in (("hidden", 1), ("hidden", 10)):
                    continue                     # they make sense, and change the net of the other tests
                body = json.dumps({**fitting, key: value})
                connection.request("POST", f"{root(page)}api/{name}", body, {"Content-Type": "application/json"})
                answer = Answer(connection.getresponse())
                assert answer.status in (200, 400), (key, value, answer.body)
                if answer.status == 400:
                    assert len(answer.json["error"].splitlines()) == 1, (key, value)
    ask(page, "train", do="pause")
    assert ask(page, "set", lr=0.02, batch_size=1, optimizer="sgd").status == 200


# --- many pages, slow ones, and the end ---


def ink(side=56):
    import base64

    image = np.zeros((side, side), np.uint8)
    image[side // 4 : 3 * side // 4, side // 2 - 3 : side // 2 + 3] = 255
    return base64.b64encode(image.tobytes()).decode()


def test_two_pages_see_the_same_run(page):
    there = ask(page, "news", seen=-1).json["samples"] // 400 * 400 + 400
    ask(page, "train", do="epoch")
    end = time.monotonic() + LONG
    seen = [{"version": -1, "points": [], "generation": -1} for _ in range(2)]
    for k in itertools.cycle((0, 1)):
        news = ask(page, "news", seen=seen[k]["version"], points=len(seen[k]["points"]),
                   generation=seen[k]["generation"]).json
        before = seen[k]["points"] if news["generation"] == seen[k]["generation"] else []
        seen[k] = {**news, "points": before + news["points"]}
        if all(s.get("state") == "paused" and s.get("samples") == there for s in seen):
            break
        assert time.monotonic() < end
    assert seen[0]["points"] == seen[1]["points"]
    assert seen[0]["points"][-1][0] == there


def test_a_page_that_is_closed_in_the_middle_of_training_disturbs_nobody(page):
    ask(page, "train", do="start")
    before = ask(page, "news", seen=-1).json["samples"]
    for _ in range(5):
        broken = socket.create_connection(("127.0.0.1", page._server.port))
        body = b'{"seen": 1}'
        broken.sendall(
            f"POST {root(page)}api/news HTTP/1.1\r\nHost: 127.0.0.1:{page._server.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends with a reset
        broken.close()
    half = socket.create_connection(("127.0.0.1", page._server.port))
    half.sendall(b"POST /")                      # and one that never says what it wants
    end = time.monotonic() + LONG
    while ask(page, "news", seen=-1).json["samples"] < before + 500:
        assert time.monotonic() < end
        time.sleep(0.05)
    half.close()
    assert ask(page, "train", do="pause").json["state"] == "paused"


def test_who_does_not_read_makes_nobody_wait(page):
    """A page asks, and never takes the answers."""
    ask(page, "train", do="start")
    slow = socket.create_connection(("127.0.0.1", page._server.port))
    one = (f"POST {root(page)}api/weights HTTP/1.1\r\nHost: 127.0.0.1:{page._server.port}\r\n"
           "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}").encode()
    slow.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(3000):
            slow.send(one)
    before = ask(page, "news", seen=-1).json["samples"]
    end = time.monotonic() + LONG
    while ask(page, "news", seen=-1).json["samples"] < before + 1000:
        assert time.monotonic() < end
        time.sleep(0.05)
    slow.close()
    ask(page, "train", do="pause")


def test_more_connections_than_are_allowed_are_hung_up_on(page):
    idle = []
    for _ in range(servers.CONNECTIONS + 10):
        with contextlib.suppress(OSError):
            idle.append(socket.create_connection(("127.0.0.1", page._server.port), timeout=5))
    end = time.monotonic() + LONG
    while len(page._server._http._open) < servers.CONNECTIONS // 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(page._server._http._open) <= servers.CONNECTIONS
    for one in idle:
        one.close()
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(page, "hello").status == 200:
                return
        time.sleep(0.05)
    pytest.fail("it does not answer any more")


def test_the_end_leaves_no_thread_and_no_port(request):
    before = set(page_threads())                 # those of the other tests' page
    page = Page(Room(Graphs(), Trainer(fs.MLP(784, [4, 10], seed=0), digits(40, 20), fs.cross_entropy)))
    request.addfinalizer(page.close)
    assert len(set(page_threads()) - before) == 2
    port, token = page._server.port, page._server.token
    ask(page, "train", do="start")
    waiting = threading.Thread(target=lambda: _quietly(page))
    waiting.start()
    idle = socket.create_connection(("127.0.0.1", port))
    until(lambda: len(page._server._http._open) >= 2)
    start = time.monotonic()
    page.close()
    page.close()
    assert time.monotonic() - start < servers.PATIENCE
    waiting.join(LONG)
    assert not waiting.is_alive()
    idle.close()
    until(lambda: not page._server._http._open)
    until(lambda: not any(map(threading.Thread.is_alive, set(page_threads()) - before)))
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    assert repr(page) == "<closed page>"
    assert token not in repr(page)


def page_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastscalar-play")]


def until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _quietly(page):
    """A page that is looked at: it asks again and again."""
    version = -1
    with contextlib.suppress(Exception):
        while True:
            version = ask(page, "news", seen=version).json["version"]


def test_the_model_can_be_kept(page, tmp_path):
    answer = request(page, "GET", root(page) + "model.npz")
    (tmp_path / "model.npz").write_bytes(answer.body)
    net = fs.load(tmp_path / "model.npz")
    assert repr(net) == "MLP(784, [8, 10])"
    assert net.metadata == {"title": "synthetic digits"}
    assert "attachment" in answer.headers["Content-Disposition"]
