"""`fs.play`, saved pages, drawings, and the command."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import types
import urllib.request

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import play
from fastscalar.play.graphs import Graphs
from fastscalar.play.page import saved
from fastscalar.play.room import Room
from fastscalar.play.samples import Samples, centred, drawing
from fastscalar.play.server import LIMIT, Refused
from fastscalar.play.training import Trainer

QUIET = {"open_browser": False, "block": False}


def small():
    (X, y), (X_test, y_test) = fs.datasets.synthetic_digits(300, 100)
    return X.reshape(-1, 784) / 255, y, X_test.reshape(-1, 784) / 255, y_test


def read(page, name, **message):
    request = urllib.request.Request(f"{page.url}api/{name}", json.dumps(message).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


# --- from Python ---


def test_a_tensor_shows_its_graph():
    a = fs.Tensor(2.0, label="a")
    with fs.play(a * a, **QUIET) as page:
        hello = read(page, "hello")
        assert hello["views"] == ["graph"]
        assert hello["graphs"][0] == "yours"
        assert read(page, "graph", graph="yours")["boxes"][0]["label"] == "a"


def test_names_can_be_given():
    w = fs.Tensor(1.0)
    with fs.play(lambda: w * 2, labels={"weight": w}, **QUIET) as page:
        assert read(page, "graph", graph="yours")["boxes"][0]["label"] == "weight"


def test_a_net_is_played_with_its_data():
    X, y, _, _ = small()
    net = fs.MLP(784, [5, 10], seed=0)
    with fs.play(net, X, y, **QUIET) as page:
        assert read(page, "hello")["views"] == ["draw", "train", "graph"]
        assert read(page, "train", do="step")["size"] == 270
        assert read(page, "graph", graph="net", sample=3)["boxes"][-1]["op"] == "cross_entropy"


def test_any_net_and_loss_can_be_played():
    X = np.random.default_rng(0).normal(size=(40, 3))
    with fs.play(fs.Linear(3, 1, seed=0), X, X.sum(axis=1), loss="mse", **QUIET) as page:
        hello = read(page, "hello")
        assert hello["views"] == ["train", "graph"]
        assert not hello["units"]
        read(page, "train", do="epoch")
        version = -1
        for _ in range(100):
            news = read(page, "news", seen=version)
            version = news["version"]
            if news["state"] == "paused" and news["samples"]:
                break
        assert news["metric"] == "r2"
        assert news["samples"] == 36


@pytest.mark.parametrize(("arguments", "options", "error"), [
    ((1.0,), {}, TypeError), (("x",), {}, TypeError), ((fs.MLP(2, [1]),), {}, TypeError),
    ((fs.Tensor(1.0), [1]), {}, TypeError),
    ((fs.MLP(2, [2]), [[1.0, 2.0]]), {}, TypeError),
    ((lambda x: x, [[1.0, 2.0]], [0]), {}, TypeError),
    ((fs.MLP(2, [2]), [[1.0, 2.0]], [0]), {}, ValueError),
    ((fs.MLP(2, [2]), [[1.0, 2.0]] * 9, [0] * 8), {}, ValueError),
    ((fs.MLP(2, [2]), [[1.0, 2.0]] * 9, [0] * 9), {"loss": "x"}, ValueError),
    ((fs.MLP(2, [2]), [[1.0, 2.0]] * 9, [0] * 9), {"validation_data": 3}, ValueError),
])
def test_what_cannot_be_shown_is_said(arguments, options, error):
    with pytest.raises(error, match=r"play|X has 9 rows"):
        fs.play(*arguments, **QUIET, **options)


def test_the_name_is_the_module_and_can_be_called():
    assert fs.play is play
    assert isinstance(play, types.ModuleType)
    assert callable(play)


def test_it_is_imported_only_when_it_is_used():
    code = "import sys, fastscalar; print('fastscalar.play' in sys.modules, 'http.server' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "False False\n"


def test_a_notebook_shows_a_frame(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    with fs.play(fs.Tensor(1.0) * 2) as page:    # opens no browser, and returns
        assert f'<iframe src="{page.url}"' in page._repr_html_()
        with urllib.request.urlopen(page.url, timeout=300) as response:
            assert "frame-ancestors http://localhost:*" in response.headers["Content-Security-Policy"]
    assert page._repr_html_() == "<p>closed</p>"


# --- a page in a file ---


def test_a_saved_page_needs_nothing(tmp_path):
    X, y, _, _ = small()
    a = fs.Tensor(2.0, label="</script><b>")
    with fs.play(a * a, **QUIET) as page:
        page.save(tmp_path / "graph.html")
    text = (tmp_path / "graph.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!#|data:|model\.npz)""", text)
    assert "http://" not in re.sub(r"http://www\.w3\.org/\S+", "", text)
    assert text.count("<script>") == text.count("</script>") == 7
    with fs.play(fs.MLP(784, [5, 10], seed=0), X, y, **QUIET) as page:
        page.save(tmp_path / "net.html")
    text = (tmp_path / "net.html").read_text(encoding="utf-8")
    kept = json.loads(re.search(r"window\.SAVED = (.*);</script>", text).group(1))
    assert kept["hello"]["views"] == ["train", "graph"]
    assert kept["mistakes"]["of"] == 30
    assert kept["weights"]["count"] == 5
    with pytest.raises(OSError, match="nowhere"):
        page.save(tmp_path / "nowhere" / "x.html")


def test_a_saved_page_can_be_asked_for_without_a_server():
    assert "window.SAVED" in saved(Room(Graphs()))


# --- drawings ---


def encoded(image):
    return base64.b64encode((image * 255).astype(np.uint8).tobytes()).decode()


@pytest.mark.parametrize("side", [28, 56, 112])
@pytest.mark.parametrize(("top", "left", "height", "width"), [
    (0, 0, 1, 1), (0, 0, 1.0, 0.1), (0.7, 0.8, 0.3, 0.2), (0.4, 0.1, 0.05, 0.8),
])
def test_a_drawing_is_scaled_and_centred_wherever_it_is(side, top, left, height, width):
    ink = np.zeros((side, side))
    a, b = int(top * side), int(left * side)
    ink[a : max(a + 1, a + int(height * side)), b : max(b + 1, b + int(width * side))] = 1.0
    image = centred(ink)
    assert image.shape == (28, 28)
    assert 0 <= image.min()
    assert image.max() == pytest.approx(1.0)
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert max(len(rows), len(columns)) == 20
    for ends in (rows, columns):
        assert abs((ends[0] + ends[-1] + 1) / 2 - 14) <= 1.0


def test_an_image_of_the_data_set_keeps_its_label_when_it_is_drawn():
    """What the page does to a drawing leaves digits readable: a net that knows the set reads them as well as before."""
    X, y, X_test, y_test = small()
    (X, y), _ = fs.datasets.synthetic_digits(3000, 1)
    net = fs.MLP(784, [32, 10], seed=0)
    fs.fit(net, X.reshape(-1, 784) / 255, y, epochs=3, progress=False)
    plain = fs.evaluate(net, X_test, y_test)
    drawn = np.array([centred(x.reshape(28, 28).repeat(2, axis=0).repeat(2, axis=1)).ravel() for x in X_test])
    assert fs.evaluate(net, drawn, y_test) > plain - 0.08 > 0.7


@pytest.mark.parametrize("pixels", [None, 3, "", "x", "AAAA", "é", base64.b64encode(bytes(57)).decode(),
                                    base64.b64encode(bytes(113 * 113)).decode(), base64.b64encode(bytes(49)).decode()])
def test_what_is_no_drawing_is_refused(pixels):
    with pytest.raises(Refused, match="pixels"):
        drawing(pixels)
    assert 4 * 112 * 112 // 3 < LIMIT            # the largest one fits into a message


@pytest.fixture
def room():
    X, y, X_test, y_test = small()
    samples = Samples(X, y, X_test, y_test, "digits")
    room = Room(Graphs(), Trainer(fs.MLP(784, [8, 10], seed=0), samples, fs.cross_entropy))
    yield room
    room.close()


def test_what_is_read_is_what_the_net_says_and_its_gradient(room):
    ink = np.zeros((56, 56))
    ink[10:40, 20:30] = 1.0
    answer = room.read({"pixels": encoded(ink), "score": 4})
    net, x = room.trainer.net, fs.to_tensor(centred(np.round(ink * 255) / 255).ravel())
    logits = net(x)
    logits[4].backward()
    assert answer["chances"] == pytest.approx(fs.softmax(logits).numpy().tolist())
    assert answer["best"] == int(logits.numpy().argmax())
    assert answer["logit"] == pytest.approx(logits.numpy()[4])
    pull = np.frombuffer(base64.b64decode(answer["pull"]), np.int8) / 127 * answer["scale"]
    np.testing.assert_allclose(pull, np.asarray(x.grad), atol=answer["scale"] / 100)
    assert len(base64.b64decode(answer["seen"])) == 784


def test_telling_it_the_label_moves_the_bars(room):
    ink = np.zeros((56, 56))
    ink[10:40, 20:30] = 1.0
    before = room.read({"pixels": encoded(ink)})["chances"][4]
    for _ in range(20):
        after = room.teach({"pixels": encoded(ink), "label": 4})["chances"][4]
    assert after > before + 0.2
    with pytest.raises(Refused, match="nothing"):
        room.teach({"pixels": encoded(np.zeros((56, 56))), "label": 4})


def test_mistakes_are_mistakes(room):
    found = room.mistakes({})
    labels = fs.predict(room.trainer.net, room.trainer.samples.X_test)
    assert found["wrong"] == int((labels != room.trainer.samples.y_test).sum())
    assert found["of"] == 100
    assert all(a != b for a, b in zip(found["labels"], found["taken"], strict=True))
    assert found["chances"] == sorted(found["chances"], reverse=True)


# --- the command ---


def command(*args, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "fastscalar", "play", "--no-browser", *args], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def nothing_here(tmp_path):
    """The environment of a machine without MNIST."""
    return {"FASTSCALAR_DATA": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "XDG_DATA_DIRS": str(tmp_path),
            "HOME": str(tmp_path)}


def test_the_command_trains_serves_and_ends_with_ctrl_c(nothing_here):
    process = command(**nothing_here)
    try:
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        assert "NOT MNIST" in lines[0]
        assert "fastscalar data --fetch mnist" in lines[1]
        url = re.search(r"http://\S+", "".join(lines)).group()
        page = types.SimpleNamespace(url=url)
        assert read(page, "hello")["note"]
        version = -1
        for _ in range(600):
            news = read(page, "news", seen=version)
            version = news["version"]
            if news["state"] == "paused" and news["samples"] == 24_000:
                break
        assert news["accuracy"] > 0.9
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "24,000 samples" in out
    assert err == ""


@pytest.mark.parametrize(("args", "words"), [
    (["nowhere.npz"], "nowhere.npz"), (["--data", "nowhere"], "nowhere"), (["--port", "70000"], "65,535"),
    (["--hidden", "0"], "at least 1"), (["--hidden", "5000"], "at most"),
])
def test_what_the_user_can_put_right_is_one_line(args, words, nothing_here):
    process = command(*args, **nothing_here)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_model_of_other_images_and_a_port_that_is_taken_are_said(tmp_path, nothing_here):
    fs.MLP(4, [3, 2], seed=0).save(tmp_path / "other.npz")
    process = command(str(tmp_path / "other.npz"), "--data", "synthetic", **nothing_here)
    assert "4 pixels" in process.communicate(timeout=300)[1]
    assert process.returncode == 2
    with fs.play(fs.Tensor(1.0) * 1, **QUIET) as page:
        fs.MLP(784, [3, 10], seed=0).save(tmp_path / "net.npz")
        port = str(page._server.port)
        process = command(str(tmp_path / "net.npz"), "--data", "synthetic", "--port", port, **nothing_here)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2
        assert err.count("\n") == 1
        assert "port" in err
