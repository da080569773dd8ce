"""The page in a real browser: as `vervet serve` gives it, and as the static folder that `vervet page` writes.

With VERVET_PICTURES=docs/images the pictures of the documentation are made anew.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import soxr

import vervet
from vervet.cli import main
from vervet.serve.static import PAGE, RUNTIME_FILES, write_page

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

EXAMPLES = Path(__file__).parents[1] / "examples"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--host-resolver-rules=MAP insecure.test 127.0.0.1",
)
AXE = "axe-core@4.14.1"
DONE = "#result:not([hidden]), #error:not([hidden])"
PROBABILITY = 1e-3  # that browser and Python may differ by
RESAMPLED = 5e-3  # and after a change of the sampling rate, which each does in its own way


# --- pages, and a browser to open them with


class Quiet(SimpleHTTPRequestHandler):
    """A plain web host: no header that is not its own."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def host():
    """Offers folders; gives the address of each. `stop` takes one away."""
    running = {}

    def offer(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running[address := f"http://127.0.0.1:{server.server_port}/"] = server
        return address

    def stop(address: str) -> None:
        server = running.pop(address)
        server.shutdown()
        server.server_close()

    offer.stop = stop
    yield offer
    for address in list(running):
        stop(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The static folder with the shipped model."""
    out = tmp_path_factory.mktemp("site") / "page"
    try:
        write_page(out)
    except ValueError as error:
        pytest.skip(f"no runtime: {error}")
    return out


@pytest.fixture(scope="module")
def runtime(site, tmp_path_factory):
    """The runtime as its package has it."""
    folder = tmp_path_factory.mktemp("dist")
    for name, ours in RUNTIME_FILES.items():
        os.link(site / "onnxruntime" / ours, folder / name)
    return folder


@pytest.fixture(scope="module")
def static(site, host):
    return host(site)


@pytest.fixture(scope="module")
def served():
    """The address of a running `vervet serve`."""
    pytest.importorskip("vervet.serve.server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "vervet", "serve", "--port", str(port)])
    try:
        for _ in range(200):
            if process.poll() is not None:
                pytest.fail(f"vervet serve ended with {process.returncode}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["static", "served"])
def address(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """What the microphone hears, over and over: an actor who is angry."""
    path = tmp_path_factory.mktemp("spoken") / "microphone.wav"
    waveform, rate = soundfile.read(EXAMPLES / "15a02Wb.flac")
    soundfile.write(path, soxr.resample(waveform, rate, 48_000), 48_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def chromium(spoken):
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    arguments = [*ARGUMENTS, f"--use-file-for-fake-audio-capture={spoken}"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visitor(chromium):
    """Opens pages, each as a visitor of its own; fails at the end if one of them threw."""
    thrown = []

    def open_page(address: str, ready: bool = True, allow: tuple = ("microphone",), **settings):
        context = chromium.new_context(**{"viewport": {"width": 1100, "height": 900}, **settings})
        context.set_default_timeout(15_000)
        context.grant_permissions(list(allow))
        page = context.new_page()
        page.on("pageerror", lambda error: thrown.append(error))
        page.goto(address)
        if ready:
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    assert not thrown


@pytest.fixture
def visit(visitor, chromium):
    """As `visitor`; its pages are closed when the test has ended."""
    there = list(chromium.contexts)
    yield visitor
    for context in chromium.contexts:
        if context not in there:
            context.close()


@pytest.fixture(scope="module", params=["static", "served"])
def page(request, visitor):
    """A page that several tests use, because loading the runtime takes a second or two."""
    return visitor(request.getfixturevalue(request.param))


def give(page, path: Path) -> None:
    page.set_input_files("#file", path)
    page.wait_for_selector("main:not([aria-busy])")


def answers(page) -> list[dict]:
    """The answer that the page shows, by its own button."""
    with page.expect_download() as download:
        page.click("#save-json")
    return json.loads(Path(download.value.path()).read_text())


def same(found: list[dict], expected: list[vervet.Prediction], within: float = PROBABILITY) -> None:
    assert len(found) == len(expected)
    for record, prediction in zip(found, expected, strict=True):
        assert record["start_s"] == pytest.approx(prediction.start_s, abs=1e-3)
        assert record["end_s"] == pytest.approx(prediction.end_s, abs=1e-3)
        assert (record["label"], record["uncertain"]) == (prediction.label, prediction.uncertain)
        assert record["confidence"] == record["scores"][record["label"]]
        assert record["scores"] == pytest.approx(prediction.scores, abs=within)


def long_stereo(path: Path) -> Path:
    """Three speakers, then silence, at 44.1 kHz in two channels that are not the same."""
    clips = [soundfile.read(EXAMPLES / f"{name}.flac")[0] for name in ("15a02Na", "16a04Tc", "15a07Fb")]
    left = soxr.resample(np.concatenate(clips), 16_000, 44_100)
    stereo = np.stack([left, 0.5 * left], axis=1)
    soundfile.write(path, np.concatenate([stereo, np.zeros((5 * 44_100, 2))]), 44_100, subtype="PCM_24")
    return path


# --- recordings and their answers


def test_a_chosen_file_is_answered(page):
    give(page, EXAMPLES / "15a02Wb.flac")
    [expected] = vervet.load()(EXAMPLES / "15a02Wb.flac")
    assert page.text_content("#headline") == f"Anger, {expected.confidence:.0%} sure".replace("%", " %")
    assert page.text_content("#status").startswith("Done. Anger")
    assert page.get_attribute("#status", "role") == "status"
    same(answers(page), [expected])
    assert page.is_hidden("#over-time")
    assert "half of it lies in" in page.get_attribute("#attention", "aria-label")
    drawn = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    for canvas in ("#waveform", "#attention", "#log-mel"):
        assert page.eval_on_selector(canvas, drawn) > 10, canvas


def test_a_dropped_file_is_answered(page):
    dropped = page.evaluate_handle(
        """async () => {
            const data = new DataTransfer();
            const bytes = await (await fetch("examples/15a07Fb.flac")).blob();
            data.items.add(new File([bytes], "dropped.flac"));
            return data;
        }"""
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": dropped})
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("main:not([aria-busy])")
    assert page.text_content("#name") == "dropped.flac"
    same(answers(page), vervet.load()(EXAMPLES / "15a07Fb.flac"))


def test_many_windows_are_those_of_python(page, tmp_path):
    path = long_stereo(tmp_path / "long.wav")
    give(page, path)
    page.eval_on_selector(".settings", "details => (details.open = true)")
    page.select_option("#window", "2")
    page.select_option("#hop", "0.5")
    page.wait_for_selector("main:not([aria-busy])")
    with pytest.warns(UserWarning, match="silent"):
        expected = vervet.load()(path, window_s=2.0, hop_s=0.5)
    same(answers(page), expected, RESAMPLED)
    assert "ilent" in page.text_content("#summary")
    assert f"of {len(expected)} windows" in page.text_content("#summary")
    assert page.locator("#table-body tr").count() == len(expected)
    middle = len(expected) // 2
    at_s = (expected[middle].start_s + expected[middle].end_s) / 2
    page.eval_on_selector(
        "#position", f"slider => {{ slider.value = {at_s}; slider.dispatchEvent(new Event('input')); }}"
    )
    unsure = "uncertain, most likely " if expected[middle].uncertain else ""
    assert page.text_content("#headline").lower().startswith(unsure + expected[middle].label)
    assert expected[middle].label in page.get_attribute("#position", "aria-valuetext").lower()
    page.select_option("#window", "4")
    page.select_option("#hop", "")
    page.wait_for_selector("main:not([aria-busy])")


def test_more_windows_than_are_drawn_at_once(visit, served, tmp_path):
    waveform, rate = soundfile.read(EXAMPLES / "16a04Tc.flac")
    soundfile.write(tmp_path / "long.flac", np.tile(waveform, 12), rate)
    page = visit(served)
    page.click(".settings summary")
    page.select_option("#hop", "0.5")
    give(page, tmp_path / "long.flac")
    page.wait_for_selector("#log-mel:not([hidden])")  # asked for by itself
    assert len(answers(page)) > 60


def test_csv_is_as_from_the_command(page):
    give(page, EXAMPLES / "16a04Tc.flac")
    with page.expect_download() as download:
        page.click("#save-csv")
    assert download.value.suggested_filename == "16a04Tc.csv"
    head, row = (line.split(",") for line in Path(download.value.path()).read_text().splitlines())
    found = dict(zip(head, row, strict=True))
    [expected] = vervet.load()(EXAMPLES / "16a04Tc.flac")
    assert found["file"] == "16a04Tc.flac"
    assert head[:6] == ["file", "start_s", "end_s", "label", "confidence", "uncertain"]
    assert (found["label"], found["uncertain"]) == (expected.label, str(expected.uncertain).lower())
    assert float(found["confidence"]) == pytest.approx(expected.confidence, abs=PROBABILITY)
    assert float(found["sadness"]) == pytest.approx(expected.scores["sadness"], abs=PROBABILITY)


def test_another_sampling_rate_and_codec(page, tmp_path):
    waveform, rate = soundfile.read(EXAMPLES / "16a04Tc.flac")
    for name, other in (("c.wav", 48_000), ("c.flac", 22_050), ("c.ogg", 48_000), ("c.mp3", 44_100)):
        soundfile.write(tmp_path / name, soxr.resample(waveform, rate, other), other)
        give(page, tmp_path / name)
        [record], [prediction] = answers(page), vervet.load()(tmp_path / name)
        lossy = name.endswith(("ogg", "mp3"))  # decoders differ a little
        assert record["scores"] == pytest.approx(prediction.scores, abs=0.03 if lossy else RESAMPLED), name


def test_a_recording_that_only_browsers_read_reaches_the_server(visit, served, tmp_path):
    page = visit(served)
    webm = page.evaluate(
        """async () => {
            const context = new AudioContext();
            const bytes = await (await fetch("examples/15a02Wb.flac")).arrayBuffer();
            const source = new AudioBufferSourceNode(context, { buffer: await context.decodeAudioData(bytes) });
            const out = context.createMediaStreamDestination();
            const recorder = new MediaRecorder(out.stream, { mimeType: "audio/webm;codecs=opus" });
            const data = new Promise((resolve) => (recorder.ondataavailable = (event) => resolve(event.data)));
            source.connect(out);
            source.onended = () => recorder.stop();
            recorder.start();
            source.start();
            return [...new Uint8Array(await (await data).arrayBuffer())];
        }"""
    )
    (tmp_path / "memo.webm").write_bytes(bytes(webm))
    give(page, tmp_path / "memo.webm")
    assert page.is_hidden("#error")
    assert answers(page)[0]["label"] == "anger"


def test_a_recording_that_only_the_server_reads_has_no_pictures(visit, served, tmp_path):
    soundfile.write(tmp_path / "clip.aiff", *soundfile.read(EXAMPLES / "15a02Wb.flac"))
    page = visit(served)
    give(page, tmp_path / "clip.aiff")
    same(answers(page), vervet.load()(EXAMPLES / "15a02Wb.flac"))
    assert "no pictures" in page.text_content("#summary")
    assert page.is_hidden("#saw")
    assert page.is_hidden("#play")


def test_a_model_of_fixed_length_that_is_often_uncertain(visit, host, model, runtime, tmp_path):
    site = tmp_path / "site"
    assert main(["page", "--out", str(site), "--model", str(model), "--runtime", str(runtime)]) == 0
    card = json.loads((site / "model.json").read_text())
    (site / "model.json").write_text(json.dumps(card | {"uncertain_below": 0.99, "limits": {"max_duration_s": 3.5}}))
    page = visit(host(site))
    give(page, EXAMPLES / "15a02Na.flac")
    [expected] = vervet.load(model)(EXAMPLES / "15a02Na.flac")
    [found] = answers(page)
    assert found["uncertain"]
    assert found["scores"] == pytest.approx(expected.scores, abs=PROBABILITY)
    assert page.text_content("#headline").startswith(f"Uncertain, most likely {expected.label}")
    assert page.text_content("#doubt") == "Below 99 % this model is wrong more often than right."
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 64_000), 16_000)
    give(page, tmp_path / "long.wav")
    assert "lasts 4.0 s, and 3.5 s are the most. Cut it into parts" in page.text_content("#error")


# --- the microphone


def test_the_microphone_is_heard(visit, address):
    page = visit(address)
    page.click("#record")
    page.wait_for_selector("#live-label:text-matches('anger|uncertain')")
    page.wait_for_selector("#elapsed:text-matches('0:0[2-9]')")
    page.click("#record")
    page.wait_for_selector(DONE)
    assert page.is_hidden("#error")
    assert page.is_hidden("#live")
    found = answers(page)
    page.click("#record")  # a second time
    page.wait_for_selector("#elapsed:text-matches('0:0[1-9]')")
    page.click("#record")
    page.wait_for_selector("main:not([aria-busy])")
    assert page.is_hidden("#error")
    assert found[0]["file"] == "recording.wav"
    assert found[-1]["end_s"] >= 2
    assert found[0]["label"] == "anger"


def test_what_was_asked_for_last_is_shown(visit, served):
    page, held = visit(served), []
    page.route("**/examples/16a04Tc.flac", lambda route: held.append(route))
    page.click("[data-example='16a04Tc.flac']")
    page.wait_for_selector("#status:text-matches('Fetching')")
    give(page, EXAMPLES / "15a02Wb.flac")
    held.pop().continue_()
    page.wait_for_timeout(1500)
    assert page.text_content("#name") == "15a02Wb.flac"
    page.click("[data-example='16a04Tc.flac']")
    page.click("#record")
    page.wait_for_selector("#live:not([hidden])")
    held.pop().continue_()
    assert page.is_disabled("#window")
    assert page.is_disabled("#hop")
    page.wait_for_selector("#elapsed:text-matches('0:0[2-9]')")
    assert page.text_content("#name") == "15a02Wb.flac"
    page.click("#record")
    page.wait_for_selector("#name:text-matches('recording.wav')")
    assert page.is_enabled("#window")


def test_another_recording_ends_what_plays(visit, served, tmp_path):
    page = visit(served)
    give(page, long_stereo(tmp_path / "long.wav"))
    page.click("#play")
    page.wait_for_selector("#play[aria-label=Pause]")
    give(page, EXAMPLES / "15a02Wb.flac")
    assert page.get_attribute("#play", "aria-label") == "Play"
    assert page.eval_on_selector("#audio", "audio => audio.paused")


def test_a_refused_microphone_is_explained(visit, served):
    page = visit(served, allow=())
    page.click("#record")
    page.wait_for_selector("#error:not([hidden])")
    assert "was not allowed" in page.text_content("#error")
    give(page, EXAMPLES / "15a02Wb.flac")  # and a file is still taken
    assert page.is_hidden("#error")


def test_an_insecure_page_explains_that_it_has_no_microphone(visit, served):
    page = visit(served.replace("127.0.0.1", "insecure.test"), allow=())
    page.click("#record")
    page.wait_for_selector("#error:not([hidden])")
    assert "only over https or on localhost" in page.text_content("#error")


# --- what goes wrong


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    waveform, rate = soundfile.read(EXAMPLES / "15a02Wb.flac", dtype="float32")
    (folder / "text.wav").write_text("this is no sound " * 100)
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "silent.wav", np.zeros(32_000), rate)
    soundfile.write(folder / "short.wav", waveform[:800], rate)
    soundfile.write(folder / "nan.wav", np.where(np.arange(len(waveform)) == 9_000, np.nan, waveform), rate, "FLOAT")
    soundfile.write(folder / "loud.wav", 100 * waveform, rate, "FLOAT")
    soundfile.write(folder / "whole.wav", waveform, rate)
    (folder / "cut.wav").write_bytes((folder / "whole.wav").read_bytes()[:30_000])
    (folder / "cut.flac").write_bytes((EXAMPLES / "15a02Wb.flac").read_bytes()[:20_000])
    return folder


@pytest.mark.parametrize(
    ("name", "static_says"),
    [
        ("text.wav", "not audio that the browser can decode"),
        ("empty.wav", "is empty"),
        ("silent.wav", "Silent in 0.00 to 2.00 s"),
        ("short.wav", "too short to judge"),
        ("nan.wav", "NaN or infinite samples, the first at 0.563 s"),
        ("loud.wav", "full scale is 1"),
        ("cut.wav", "It was cut short"),
        ("cut.flac", "cut short"),
    ],
)
def test_a_bad_recording_is_explained_and_has_no_answer(page, broken, name, static_says, request):
    give(page, broken / name)
    said = page.text_content("#error")
    assert page.is_hidden("#result")
    assert page.get_attribute("#error", "role") == "alert"
    assert said.startswith(name)
    if "static" in request.node.callspec.id:
        assert static_says in said
    else:
        assert len(said) > 30


def test_a_server_that_is_gone_is_named(visit, host, site, tmp_path):
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site" / "model.onnx").unlink()
    page = visit(host(tmp_path / "site"), ready=False)
    page.wait_for_selector("#error:not([hidden])")
    assert "model.onnx could not be fetched" in page.text_content("#error")
    assert page.is_disabled("#record")


def test_a_server_out_of_reach_is_named(visit, served):
    page = visit(served)
    page.context.set_offline(True)
    give(page, EXAMPLES / "15a02Wb.flac")
    assert "The server does not answer" in page.text_content("#error")
    page.context.set_offline(False)
    give(page, EXAMPLES / "15a02Wb.flac")
    assert page.is_hidden("#error")


# --- privacy


def test_the_static_page_works_offline_and_sends_nothing(visit, site, host):
    page = visit(gone := host(site))
    page.wait_for_load_state("networkidle")
    host.stop(gone)
    page.context.set_offline(True)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    give(page, EXAMPLES / "15a02Wb.flac")
    assert page.text_content("#headline").startswith("Anger")
    page.click("#record")
    page.wait_for_selector("#elapsed:text-matches('0:0[1-9]')")
    page.click("#record")
    page.wait_for_selector("#name:text-matches('recording.wav')")
    assert page.is_hidden("#error")
    assert [url for url in asked if not url.startswith("blob:")] == []


def test_a_page_can_reach_nothing_but_its_own_host(visit, address, host, tmp_path):
    (tmp_path / "pixel.png").write_bytes(b"")
    elsewhere = host(tmp_path)
    page = visit(address)
    asked = []
    page.context.on("requestfinished", lambda request: asked.append(request.url))
    assert page.evaluate(f"fetch('{elsewhere}').then(() => 'sent', () => 'refused')") == "refused"
    page.evaluate(
        f"new Promise(done => {{ const i = new Image(); i.onerror = done; i.src = '{elsewhere}pixel.png'; }})"
    )
    assert page.evaluate("fetch('style.css').then(() => 'sent', () => 'refused')") == "sent"
    assert [url for url in asked if url.startswith(elsewhere)] == []


def test_every_request_goes_to_the_host_of_the_page(chromium, address):
    context = chromium.new_context()
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    page.click("[data-example='16a04Tc.flac']")
    page.wait_for_selector(DONE)
    assert "the actor meant sadness" in page.text_content("#name")
    assert len(asked) > 5
    assert all(url.startswith((address, "blob:")) for url in asked), asked
    context.close()


def test_work_that_nobody_waits_for_any_more_is_given_up(visit, served, tmp_path):
    page = visit(served)
    soundfile.write(tmp_path / "long.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 590 * 16_000), 16_000)
    given_up = []
    page.on("requestfailed", lambda request: given_up.append((urlsplit(request.url).path, request.failure)))
    page.set_input_files("#file", tmp_path / "long.flac")
    with page.expect_request("**/v1/predict*"):
        pass
    give(page, EXAMPLES / "15a02Wb.flac")
    assert page.text_content("#name") == "15a02Wb.flac"
    assert ("/v1/predict", "net::ERR_ABORTED") in given_up


def test_what_is_no_file_is_said_to_be(visit, served):
    page = visit(served)
    page.evaluate("() => { File.prototype.arrayBuffer = () => Promise.reject(new DOMException()) }")
    give(page, EXAMPLES / "15a02Wb.flac")
    assert "It cannot be read: it is a folder, or was moved" in page.text_content("#error")


# --- for everybody


def test_it_works_by_keyboard_alone(visit, served):
    page = visit(served)
    focused = "document.activeElement.id || document.activeElement.dataset.example || document.activeElement.className"
    order = []
    while "15a07Fb.flac" not in order:
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
        assert len(order) < 10, order
    assert order[:3] == ["skip", "file", "record"]
    page.keyboard.press("Enter")
    page.wait_for_selector(DONE)
    while page.evaluate(focused) != "play":
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_selector("#play[aria-label=Pause]")
    page.keyboard.press("Space")
    page.wait_for_selector("#play[aria-label=Play]")
    page.keyboard.press("Tab")
    before = float(page.input_value("#position"))
    whole = float(page.get_attribute("#position", "max"))
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert before + 0.15 * whole < float(page.input_value("#position")) < before + 0.4 * whole


def test_a_phone_needs_no_sideways_scrolling(visit, served, tmp_path):
    page = visit(served, viewport={"width": 320, "height": 640})
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 320
    give(page, long_stereo(tmp_path / "a long name without a place to break it, 0123456789abcdefghijklmnopqrstuvw.wav"))
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate(width) == 320


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source of axe-core, which checks a page against WCAG."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm to fetch axe-core with")
    done = subprocess.run(
        [npm, "pack", AXE, "--prefer-offline", "--silent"], cwd=folder, capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("npm could not fetch axe-core")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()


def test_axe_finds_nothing_in_either_scheme(visit, static, axe, broken, tmp_path):
    page = visit(static)
    page.evaluate(axe)
    grounds = []
    for recording in (None, broken / "text.wav", long_stereo(tmp_path / "long.wav")):
        if recording:
            give(page, recording)
        page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            found = page.evaluate("axe.run()")
            assert len(found["passes"]) > 20
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
    assert len(set(grounds)) == 2


# --- the folder


def test_the_folder_says_which_model_it_holds(site):
    predictor = vervet.load()
    card = json.loads((site / "model.json").read_text())
    assert card == predictor.card | {"digest": predictor.digest, "version": vervet.__version__}
    assert "Microsoft" in (site / "onnxruntime" / "LICENSE").read_text()
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 25e6


def test_an_empty_folder_is_filled_however_it_is_named(site, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "dist").mkdir()
    for name, ours in RUNTIME_FILES.items():
        (tmp_path / "dist" / name).write_bytes((site / "onnxruntime" / ours).read_bytes())
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", str(tmp_path / "link")):
        assert main(["page", "--out", out, "--runtime", str(tmp_path / "dist")]) == 0
    for name in ("here", "there"):
        assert (tmp_path / name / "index.html").read_bytes() == (site / "index.html").read_bytes()


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, capsys, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    words = ["page", "--out", str(full)]
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    words = ["page", "--out", str(tmp_path / "new")]
    assert main([*words, "--runtime", str(full)]) == 1
    assert "holds no ort.wasm.bundle.min.mjs" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(full))
    assert main(words) == 1
    assert "npm is not installed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_examples_are_those_of_the_repository():
    clips = [entry for entry in (PAGE / "examples").iterdir() if entry.name.endswith(".flac")]
    assert len(clips) == 3
    for clip in clips:
        assert clip.read_bytes() == (EXAMPLES / clip.name).read_bytes()
    assert sum(len(clip.read_bytes()) for clip in clips) < 200_000


# --- pictures of the documentation


@pytest.mark.skipif("VERVET_PICTURES" not in os.environ, reason="VERVET_PICTURES names no folder")
@pytest.mark.parametrize(("name", "scheme", "width"), [("page", "light", 1000), ("page-phone", "dark", 390)])
def test_pictures(visit, static, tmp_path, name, scheme, width):
    page = visit(static, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.click("[data-example='16a04Tc.flac']")
    page.wait_for_selector(DONE)
    page.eval_on_selector("#position", "slider => { slider.value = 1.2; slider.dispatchEvent(new Event('input')); }")
    height = page.eval_on_selector("#result", "result => result.getBoundingClientRect().bottom + scrollY + 24")
    clip = {"x": 0, "y": 0, "width": width, "height": height}
    page.screenshot(path=Path(os.environ["VERVET_PICTURES"]) / f"{name}.png", full_page=True, clip=clip)
