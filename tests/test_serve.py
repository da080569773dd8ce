import asyncio
import base64
import concurrent.futures
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

import vervet
from vervet import audio, cli
from vervet.stream import Stream, to_json

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "websockets", "httpx"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'vervet[serve]' httpx")

import httpx  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from vervet.serve import app, schema, server, streams  # noqa: E402
from vervet.serve.limits import Limits, Refused, limits_of  # noqa: E402
from vervet.serve.recording import Wanted, _check_length  # noqa: E402
from vervet.serve.service import Service  # noqa: E402
from vervet.serve.work import Work, _Job  # noqa: E402

ROOT = Path(__file__).parents[1]
CLIPS = sorted((ROOT / "examples").glob("*.flac"))
ANGER = ROOT / "examples" / "15a02Wb.flac"
RATE = 16_000


@pytest.fixture(scope="module")
def shipped():
    return vervet.load(threads=1)


class Served:
    """A server on a thread of its own."""

    def __init__(self, predictor, jobs=2, origins=(), listener=None, **limits):
        listener = listener or server.listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = Service(predictor, jobs, Limits(**limits))
        self._server = server.Server(self.service, origins)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        wait_for(lambda: self._server.started)

    def close(self):
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self.service.work.close()

    def post(self, content=None, path="/v1/predict", **more):
        return httpx.post(self.url + path, content=content, timeout=60, **more)

    def stream(self, query="", **more):
        return connect(f"ws://127.0.0.1:{self.port}/v1/stream?{query}", **more)

    def count(self, name):
        """The sum of a metric over its labels."""
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", httpx.get(f"{self.url}/metrics").text, re.M)
        return sum(map(float, found))


@contextmanager
def serving(predictor, **settings):
    with closing(Served(predictor, **settings)) as served:
        yield served


@pytest.fixture(scope="module")
def served(shipped):
    with serving(shipped) as running:
        yield running


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.01)


def encoded(samples, rate=RATE, form="WAV", subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=form)
    return file.getvalue()


def speech(duration_s) -> np.ndarray:
    return np.resize(audio.read(ANGER)[0], round(duration_s * RATE))


def as_told(predictions) -> list[dict]:
    return [
        {
            "start_s": p.start_s,
            "end_s": p.end_s,
            "label": p.label,
            "uncertain": p.uncertain,
            "confidence": pytest.approx(p.confidence, abs=1e-4),
            "scores": pytest.approx(p.scores, abs=1e-4),
        }
        for p in predictions
    ]


def error_of(response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    return response.status_code, error["code"]


# --- recordings


@pytest.mark.parametrize("clip", CLIPS[::5], ids=lambda clip: clip.name)
def test_answers_are_the_predictors_own(served, shipped, clip):
    response = served.post(clip.read_bytes())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    told = response.json()
    assert told["predictions"] == as_told(shipped(clip))
    assert (told["file"], told["problem"]) == ("<bytes>", "")
    assert told["duration_s"] == pytest.approx(soundfile.info(clip).duration, abs=1e-5)


def test_windows_of_a_form_in_other_formats(served, shipped):
    waveform, rate = speech(9.3), 16_000
    for form in ("WAV", "OGG", "MP3"):
        content = encoded(waveform, rate, form)
        response = served.post(path="/v1/predict?window_s=2&hop_s=1.5", files={"file": (f"talk.{form}", content)})
        assert response.status_code == 200
        assert response.json()["file"] == f"talk.{form}"
        assert response.json()["predictions"] == as_told(shipped(content, window_s=2, hop_s=1.5))


def test_silent_stretches_are_named(served):
    content = encoded(np.concatenate([speech(4), np.zeros(8 * RATE), speech(4)]))
    told = served.post(files={"file": ("talk.wav", content)}).json()
    assert [p["start_s"] for p in told["predictions"]] == [0, 12]
    assert "talk.wav: silent" in told["problem"]
    assert "4.00 to 12.00 s" in told["problem"]


def test_one_side_of_a_call_is_answered_where_it_speaks(served, shipped):
    quiet = 0.001 * np.random.default_rng(0).standard_normal(4 * RATE)
    call = np.stack([np.concatenate([speech(4), quiet]), np.concatenate([quiet, speech(4)])], axis=1)
    content = encoded(call)
    for channel in (0, 1):
        told = served.post(content, f"/v1/predict?channel={channel}&speech_only=true").json()
        alone = shipped(audio.Part(content, channel=channel), speech_only=True)
        assert [p["start_s"] for p in told["predictions"]] == [4 * channel]
        assert (told["predictions"], told["problem"]) == (as_told(alone), "")


def test_detail_shows_what_the_network_saw(served, shipped):
    for duration_s in (1.3, 4.0):
        waveform = speech(duration_s)
        [told] = served.post(encoded(waveform), "/v1/predict?detail=true").json()["predictions"]
        read, _ = audio.read(encoded(waveform))
        views = shipped.run([read], ("log_mel", "attention"))
        width, patches = views["log_mel"].shape[2], views["attention"].shape[1]
        columns, looked = (-(-count * len(read) // (4 * RATE)) for count in (width, patches))
        picture = told["log_mel"]
        assert (picture["n_mels"], picture["columns"], len(told["attention"])) == (128, columns, columns)
        pixels = np.frombuffer(base64.b64decode(picture["data"]), np.uint8).reshape(128, columns)
        np.testing.assert_allclose(pixels / 255, views["log_mel"][0][:, :columns], atol=0.5 / 255 + 1e-6)
        shares = views["attention"][0][:looked].repeat(-(-columns // looked))[:columns]
        np.testing.assert_allclose(told["attention"], shares / shares.sum(), atol=1e-4)
        assert sum(told["attention"]) == pytest.approx(1)


def test_a_batch_is_answered_in_order_whatever_is_wrong_with_some(served, shipped):
    silent = encoded(np.zeros(RATE))
    files = [("files", (clip.name, clip.read_bytes())) for clip in CLIPS[:5]]
    files[1:1] = [("files", ("words.wav", b"no sound")), ("files", ("silent.wav", silent)), ("files", ("no.wav", b""))]
    told = served.post(path="/v1/predict/batch", files=files).json()["results"]
    assert [result["file"] for result in told] == [name for _, (name, _) in files]
    codes = [result["error"]["code"] if "error" in result else None for result in told]
    assert codes == [None, "unreadable_audio", "unreadable_audio", "invalid_request", *[None] * 4]
    for result, clip in zip([told[0], *told[4:]], CLIPS, strict=False):
        assert result["predictions"] == as_told(shipped(clip))


def test_many_at_once_are_all_answered(served, shipped):
    own = {clip: as_told(shipped(clip)) for clip in CLIPS}
    broken = [b"", b"words", CLIPS[0].read_bytes()[:9000], encoded(np.zeros(RATE))]

    async def ask():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=served.url, timeout=60, limits=limits) as client:
            clips = [CLIPS[n % len(CLIPS)] for n in range(120)]
            good = [client.post("/v1/predict", content=clip.read_bytes()) for clip in clips]
            bad = [client.post("/v1/predict", content=broken[n % 4]) for n in range(40)]
            answers = await asyncio.gather(*good, *bad)
        return clips, answers[:120], answers[120:]

    clips, good, bad = asyncio.run(ask())
    assert all(answer.json()["predictions"] == own[clip] for clip, answer in zip(clips, good, strict=True))
    assert [answer.status_code for answer in bad] == [400, 415, 422, 422] * 10


def test_recordings_are_never_on_disk(served, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    content = encoded(speech(60))
    assert len(content) > 1_900_000
    assert served.post(files={"file": ("talk.wav", content)}).status_code == 200


# --- what is refused

TONE = 0.3 * np.sin(np.arange(RATE) / 10)


@pytest.mark.parametrize(
    ("content", "query", "status", "code", "message"),
    [
        (b"", "", 400, "invalid_request", "is empty"),
        (b"words, not sound", "", 415, "unreadable_audio", "not audio that can be decoded"),
        (ANGER.read_bytes()[:9000], "", 422, "unreadable_audio", "copy it again"),
        (encoded(np.where(TONE > 0.299, np.nan, TONE), subtype="FLOAT"), "", 422, "unreadable_audio", "holds NaN"),
        (encoded(np.zeros(2 * RATE)), "", 422, "unreadable_audio", "silent"),
        (encoded(TONE[:800]), "", 422, "unreadable_audio", "too short"),
        (encoded(TONE[:0]), "", 422, "unreadable_audio", "no samples"),
        (encoded(TONE), "?window_s=5", 422, "invalid_request", "window of 5 s"),
        (encoded(TONE), "?window_s=long", 422, "invalid_request", "window_s: "),
        (encoded(TONE), "?hop_s=nan", 422, "invalid_request", "hop_s: "),
        (encoded(TONE), "?hop_s=-1", 422, "invalid_request", "hop of -1 s"),
        (encoded(TONE), "?windows=2", 422, "invalid_request", "windows: is no setting"),
        (encoded(TONE), "?channel=1", 422, "invalid_request", "there is no channel 1; it has one channel"),
        (encoded(TONE), "?channel=-1", 422, "invalid_request", "channel: "),
        (encoded(TONE), "?hop_s=1&window_s=1&hop_s=2", 422, "invalid_request", "hop_s: is given twice"),
        (encoded(0.001 * TONE), "?speech_only=true", 422, "unreadable_audio", "nobody speaks in it"),
        (encoded(speech(5)), "?window_s=1&hop_s=0.001", 422, "invalid_request", "4001 windows, and 2000"),
        (encoded(speech(5)), "?hop_s=1e305", 422, "invalid_request", "hop of 1e+305 s: choose at least"),
        (encoded(speech(5)), "?window_s=1&hop_s=0.05&detail=1", 422, "invalid_request", "choose a hop"),
    ],
)
def test_faults_are_named(served, content, query, status, code, message):
    response = served.post(content, f"/v1/predict{query}")
    assert error_of(response) == (status, code)
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "form", "status", "message"),
    [
        ("/v1/predict", {"files": {"sound": ANGER.read_bytes()}}, 422, "only files named 'file'"),
        ("/v1/predict", {"files": {"file": ANGER.read_bytes()}, "data": {"hop_s": "1"}}, 422, "into the query"),
        ("/v1/predict", {"files": [("file", b"1"), ("file", b"2")]}, 400, "Too many files"),
        ("/v1/predict/batch", {"content": ANGER.read_bytes()}, 415, "multipart/form-data"),
        ("/v1/predict/batch", {"files": [("files", b"1")] * 65}, 400, "Too many files"),
        ("/v1/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ("/v1/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, ""),
        ("/v1/model", {"content": b"x"}, 405, "openapi.json"),
        ("/v1/predict/", {"content": b"x"}, 404, "openapi.json"),
        ("/page.js", {"content": b"x"}, 405, "openapi.json"),
    ],
)
def test_faults_of_forms_and_addresses_are_named(served, path, form, status, message):
    response = served.post(path=path, **form)
    assert error_of(response) == (status, "invalid_request")
    assert message in response.json()["error"]["message"]


def form(*parts, end=b"--y--\r\n"):
    head = b'--y\r\nContent-Disposition: form-data; name="files"; filename="a.flac"\r\n\r\n'
    return b"".join(head + part + b"\r\n" for part in parts) + end


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (form(ANGER.read_bytes())[:40], "the body was cut off"),
        (form(ANGER.read_bytes())[:9000], "the body was cut off"),
        (form(ANGER.read_bytes(), ANGER.read_bytes())[:-9000], "the body was cut off"),
        (form(ANGER.read_bytes(), end=b"--y"), "the body was cut off"),
        (b"", "the body is empty"),
        (b"--y--\r\n", "no part is named 'files'"),
    ],
)
def test_a_form_that_is_cut_off_is_said_to_be(served, content, message):
    headers = {"content-type": "multipart/form-data; boundary=y"}
    response = served.post(content, "/v1/predict/batch", headers=headers)
    assert error_of(response) == (400, "invalid_request")
    assert message in response.json()["error"]["message"]
    whole = served.post(form(ANGER.read_bytes(), end=b"--y--"), "/v1/predict/batch", headers=headers)
    assert len(whole.json()["results"]) == 1


def test_a_name_that_no_file_can_have_is_no_fault_of_ours(served):
    content = b'--B\r\nContent-Disposition: form-data; name="file"; filename="\\ud800"\r\n\r\nx\r\n--B--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=B; charset=unicode_escape"}
    assert error_of(served.post(content, headers=headers)) == (415, "unreadable_audio")


def test_a_broken_form_is_not_in_the_log(served, caplog):
    headers = {"content-type": "multipart/form-data; boundary=B"}
    assert served.post(b"what nobody else may read", headers=headers).status_code == 400
    assert caplog.text == ""


def test_an_address_where_nothing_is_says_so(served):
    assert error_of(httpx.get(f"{served.url}/v1/nothing")) == (404, "invalid_request")


@pytest.mark.parametrize("path", ["/", "/page.js", "/v1/model", "/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_a_head_is_that_of_the_answer(served, path):
    head, answer = httpx.head(served.url + path), httpx.get(served.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == answer.headers["content-type"]
    assert head.headers.get("content-length") in ({None} if path == "/metrics" else {answer.headers["content-length"]})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/predict", "POST"),
        ("HEAD", "/v1/predict/batch", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/v1/model", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_one_is_allowed(shipped, served, tmp_path, monkeypatch, method, path, allowed):
    monkeypatch.setattr(app, "PAGE", tmp_path)
    with serving(shipped) as bare:
        for url in (served.url, bare.url):
            response = httpx.request(method, url + path)
            assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.fixture(scope="module")
def strict(shipped):
    with serving(shipped, max_bytes=100_000, max_duration_s=5, timeout_s=1, max_held_bytes=150_000) as running:
        yield running


def test_a_body_may_be_only_so_large(strict):
    assert error_of(strict.post(bytes(100_001))) == (413, "too_large")
    assert error_of(strict.post(iter([bytes(60_000)] * 2))) == (413, "too_large")  # without a Content-Length
    assert error_of(strict.post(files={"file": bytes(100_000)})) == (413, "too_large")
    assert error_of(strict.post(bytes(100_000))) == (415, "unreadable_audio")
    assert strict.service.held.bytes == 0


def test_who_asks_first_whether_to_send_is_told_not_to(strict):
    with socket.create_connection(("127.0.0.1", strict.port)) as client:
        client.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_recording_may_be_only_so_long_which_its_header_says(strict):
    week = io.BytesIO()
    with soundfile.SoundFile(week, "w", 4000, 1, format="FLAC") as file:
        file.write(np.zeros(4000 * 3600, np.int16))
    assert len(week.getvalue()) < 60_000
    start = time.monotonic()
    assert error_of(strict.post(week.getvalue())) == (413, "too_long")
    assert time.monotonic() - start < 1


def test_bodies_that_are_held_are_bounded_in_all(strict):
    with socket.create_connection(("127.0.0.1", strict.port)) as first:
        first.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(90_000))
        wait_for(lambda: strict.service.held.bytes == 90_000)
        response = strict.post(bytes(90_000))
        assert error_of(response) == (503, "busy")
        assert response.headers["retry-after"] == "1"
    wait_for(lambda: strict.service.held.bytes == 0)
    assert strict.post(ANGER.read_bytes()).status_code == 200


def test_a_slow_body_is_ended_and_holds_nobody_up(strict):
    with socket.create_connection(("127.0.0.1", strict.port)) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfLaC")
        start = time.monotonic()
        assert strict.post(ANGER.read_bytes()).status_code == 200
        slow.settimeout(10)
        answer = slow.recv(2000)
        assert time.monotonic() - start > 0.8
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        while answer:
            answer = slow.recv(2000)


def test_a_connection_without_a_request_is_ended(served, monkeypatch):
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    with socket.create_connection(("127.0.0.1", served.port)) as silent:
        silent.settimeout(10)
        silent.sendall(b"POST /v1/pre")
        assert silent.recv(100) == b""


# --- long ones, and those who do not wait


@pytest.fixture(scope="module")
def long() -> bytes:
    return encoded(speech(20), form="FLAC")


LONG = "/v1/predict?hop_s=0.1"  # of work for half a second or more
LONGER = "/v1/predict?hop_s=0.02"  # of work that is not waited for


def test_a_long_recording_holds_no_short_one_up(shipped, long):
    with serving(shipped, jobs=1) as busy, concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(busy.post, long, LONG)
        wait_for(lambda: busy.service.waiting == 1)
        assert busy.post(ANGER.read_bytes()).status_code == 200
        assert not first.done()
        assert len(first.result().json()["predictions"]) == 161


def test_more_than_may_wait_are_told_to_come_back(shipped, long):
    with serving(shipped, max_waiting=1) as busy, concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(busy.post, long, LONG)
        wait_for(lambda: busy.service.waiting == 1)
        response = busy.post(ANGER.read_bytes())
        assert error_of(response) == (503, "busy")
        assert response.headers["retry-after"] == "1"
        assert httpx.get(f"{busy.url}/healthz").status_code == 200
        assert first.result().status_code == 200
        assert busy.post(ANGER.read_bytes()).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(shipped, long):
    with serving(shipped, timeout_s=0.2) as hurried:
        response = hurried.post(long, LONGER)
        assert error_of(response) == (503, "timeout")
        wait_for(lambda: len(hurried.service.work) == 0)
        assert hurried.service.held.bytes == 0
        assert hurried.count("vervet_windows_total") == 0


def test_the_work_of_a_client_that_vanished_is_dropped(shipped, long):
    with serving(shipped, jobs=1) as left:
        with socket.create_connection(("127.0.0.1", left.port)) as client:
            head = f"POST {LONGER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(long)}\r\n\r\n"
            client.sendall(head.encode() + long)
            wait_for(lambda: left.service.waiting == 1)
        wait_for(lambda: left.service.waiting == 0, 3)
        wait_for(lambda: len(left.service.work) == 0, 3)
        assert left.service.held.bytes == 0
        assert left.post(ANGER.read_bytes()).status_code == 200
        assert left.count("vervet_windows_total") == 1
        assert left.count('vervet_requests_total{route="/v1/predict",status="499"}') == 1


# --- streams


def pcm(duration_s) -> bytes:
    return (speech(duration_s) * 32767).astype("<i2").tobytes()


def heard(websocket) -> list[dict]:
    told = []
    with suppress(ConnectionClosed):  # its code is looked at where it matters
        while True:
            told.append(json.loads(websocket.recv(20)))
    return told


@pytest.mark.parametrize("size", [3200, 4001, 200_000])
def test_a_stream_hears_what_stream_hears(served, shipped, size):
    sound = pcm(9.7)
    own = Stream(shipped, RATE, hop_s=0.5, threshold=0.6)
    expected = [json.loads(to_json(h)) for h in own.feed(sound) + own.finish()]
    with served.stream("hop_s=0.5&threshold=0.6") as websocket:
        for start in range(0, len(sound), size):
            websocket.send(sound[start : start + size])
        websocket.send("end")
        told = heard(websocket)
        assert websocket.close_code == 1000
    assert len(told) == len(expected) == 19
    for one, other in zip(told, expected, strict=True):
        assert (one["start_s"], one["end_s"], one["label"]) == (other["start_s"], other["end_s"], other["label"])
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)


def test_answers_of_a_stream_come_while_it_lasts(served):
    with served.stream("gate_db=none&pcm=f32le&sampling_rate=8000&channels=2") as websocket:
        samples = np.repeat(audio.resample(speech(1.3), RATE, 8000), 2)
        websocket.send(samples.astype("<f4").tobytes())
        assert json.loads(websocket.recv(10))["end_s"] == 1.0
        assert served.service.streams == 1
    wait_for(lambda: served.service.streams == 0)


@pytest.mark.parametrize(
    ("query", "message", "code", "fault"),
    [
        ("hop_s=0.05", None, "invalid_request", "hop of 0.05 s"),
        ("hop=1", None, "invalid_request", "hop: is no setting"),
        ("hop_s=1&hop_s=2", None, "invalid_request", "hop_s: is given twice"),
        ("pcm=mp3", None, "invalid_request", "PCM format 'mp3': choose one of s16le"),
        ("channels=65", None, "invalid_request", "65 channels"),
        ("", "stop", "invalid_request", "not 'end'"),
        ("", ANGER.read_bytes()[:2000], "unreadable_audio", "not raw PCM"),
        ("pcm=f32le", np.full(100, np.nan, "<f4").tobytes(), "unreadable_audio", "NaN"),
    ],
)
def test_faults_of_streams_are_named(served, query, message, code, fault):
    with served.stream(query) as websocket:
        if message:
            websocket.send(message)
        [told] = heard(websocket)
        assert told["error"]["code"] == code
        assert fault in told["error"]["message"]
        assert websocket.close_code == 1008


def test_a_file_is_told_from_pcm_after_an_empty_message(served):
    with served.stream() as websocket:
        websocket.send(b"")
        websocket.send(ANGER.read_bytes()[:2000])
        [told] = heard(websocket)
        assert "not raw PCM" in told["error"]["message"]


HANDSHAKE = (
    b"GET /v1/stream%b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (b"?hop_s=" + b"1" * 9000, b""),
        (b"", b"Cookie: " + b"a" * 9000 + b"\r\n"),
        (b"", b"".join(b"X-%d: a\r\n" % number for number in range(130))),
        (b"", b"Content-Length: 3\r\n"),
    ],
)
def test_a_handshake_that_is_none_is_refused_and_its_connection_closed(served, query, headers):
    with socket.create_connection(("127.0.0.1", served.port), 10) as client:
        client.sendall(HANDSHAKE % (query, headers))
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert json.loads(body)["error"]["code"] == "invalid_request"


def test_who_reads_no_pongs_is_sent_no_more_of_them(shipped):
    listener = server.listen("127.0.0.1", 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with serving(shipped, listener=listener) as patient, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", patient.port))
        client.sendall(HANDSHAKE % (b"", b""))
        assert client.recv(1000).startswith(b"HTTP/1.1 101")
        client.sendall((b"\x89\xfd" + bytes(4) + b"p" * 125) * 40_000)  # pings
        [connection] = patient._server.server_state.connections
        assert 0 < connection.transport.get_write_buffer_size() < 500_000


def test_a_message_in_many_pieces_is_heard(served):
    with served.stream("hop_s=0.5") as websocket:
        sound = pcm(2)
        websocket.send(sound[i : i + 33] for i in range(0, len(sound), 33))
        websocket.send("end")
        pieces = heard(websocket)
    with served.stream("hop_s=0.5") as websocket:
        websocket.send(pcm(2))
        websocket.send("end")
        assert pieces == heard(websocket)


def test_streams_are_bounded(shipped):
    with serving(shipped, max_streams=1, idle_s=0.5, max_message_bytes=10_000) as few:
        with few.stream() as first:
            with few.stream() as second:
                assert heard(second)[0]["error"]["code"] == "busy"
                assert second.close_code == 1013
            [told] = heard(first)  # which says nothing for half a second
            assert (told["error"]["code"], first.close_code) == ("timeout", 1008)
        wait_for(lambda: few.service.streams == 0)
        with few.stream() as third:
            third.send(bytes(10_001))
            with pytest.raises(ConnectionClosed):
                third.recv(10)
            assert third.close_code == 1009


def test_a_client_that_does_not_take_its_answers_is_dropped(shipped, monkeypatch):
    monkeypatch.setattr(streams, "STALLED_S", 0.5)
    listener = server.listen("127.0.0.1", 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with serving(shipped, listener=listener) as patient, client:
        client.connect(("127.0.0.1", patient.port))
        address = f"ws://127.0.0.1:{patient.port}/v1/stream?hop_s=0.1&window_s=0.2"
        sound = pcm(10)

        def send():
            with suppress(ConnectionClosed, OSError), connect(address, sock=client, max_queue=1) as websocket:
                while True:
                    websocket.send(sound)

        sender = threading.Thread(target=send)
        sender.start()
        wait_for(lambda: patient.service.streams == 1)
        wait_for(lambda: patient.service.streams == 0, 30)
        client.shutdown(socket.SHUT_RDWR)
        sender.join(15)
        assert not sender.is_alive()


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict/batch"])
def test_pages_of_others_may_not_send_recordings(served, path):
    files = {"file" if path == "/v1/predict" else "files": ANGER.read_bytes()}

    def sent(**headers):
        return served.post(path=path, files=files, headers=headers)

    assert error_of(sent(origin="https://elsewhere.example")) == (403, "invalid_request")
    assert error_of(sent(origin="null")) == (403, "invalid_request")
    assert sent(origin=served.url).status_code == 200
    # a proxy may have changed the host, but the browser knows
    assert sent(**{"origin": "https://public.example", "sec-fetch-site": "same-origin"}).status_code == 200


def test_a_page_that_is_allowed_may_read_all_that_is_said(shipped, monkeypatch):
    with serving(shipped, origins=["https://elsewhere.example"]) as open_to:
        monkeypatch.setattr(open_to.service, "answer", None)
        response = open_to.post(ANGER.read_bytes(), headers={"origin": "https://elsewhere.example"})
        assert error_of(response) == (500, "internal")
        assert response.headers["access-control-allow-origin"] == "https://elsewhere.example"
        assert response.headers["access-control-expose-headers"] == "Retry-After"


def test_pages_of_others_may_not_open_streams(shipped, served):
    with pytest.raises(InvalidStatus) as refused, served.stream(origin="https://elsewhere.example"):
        pass
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused, served.stream(origin="http://["):
        pass
    assert refused.value.response.status_code == 403
    with served.stream(origin=served.url) as websocket:
        websocket.ping()
    with serving(shipped, origins=["https://elsewhere.example"]) as open_to:
        with open_to.stream(origin="https://elsewhere.example") as websocket:
            websocket.ping()
        response = open_to.post(ANGER.read_bytes(), headers={"origin": "https://elsewhere.example"})
        assert response.headers["access-control-allow-origin"] == "https://elsewhere.example"


def test_to_a_client_that_vanished_nothing_is_sent(shipped, caplog):
    with serving(shipped, max_streams=1) as left:
        with left.stream("hop_s=0.1&gate_db=none") as websocket:
            for _ in range(20):
                websocket.send(pcm(4.0))
            linger = struct.pack("ii", 1, 0)  # closed without a word: the other side is told that it is gone
            websocket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            websocket.socket.close()
        wait_for(lambda: left.count("vervet_streams_open") == 0)
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


# --- what it says of itself


def test_the_model_is_described(served, shipped):
    told = httpx.get(f"{served.url}/v1/model").json()
    assert schema.Model.model_validate(told)
    assert told["labels"] == list(shipped.labels)
    assert (told["digest"], told["version"]) == (shipped.digest, vervet.__version__)
    assert 0 < told["uncertain_below"] == shipped.uncertain_below < 1
    assert told["limits"]["max_duration_s"] == 600


def test_metrics_count_and_name_no_file(shipped, capfd):
    with serving(shipped) as counted:
        counted.post(files={"file": ("hidden-name.flac", ANGER.read_bytes())})
        counted.post(files={"file": ("hidden-name.flac", b"words")})
        httpx.get(f"{counted.url}/hidden-name")
        with counted.stream() as websocket:
            websocket.send(pcm(2.05))
            websocket.send("end")
            assert len(heard(websocket)) == 2
        with pytest.raises(InvalidStatus), counted.stream(origin="https://elsewhere.example"):
            pass
        text = httpx.get(f"{counted.url}/metrics").text
        assert 'vervet_requests_total{route="/v1/predict",status="200"} 1.0' in text
        assert 'vervet_requests_total{route="/v1/predict",status="415"} 1.0' in text
        assert 'vervet_requests_total{route="other",status="404"} 1.0' in text
        assert 'vervet_requests_total{route="/v1/stream",status="101"} 1.0' in text
        assert 'vervet_requests_total{route="/v1/stream",status="403"} 1.0' in text
        assert 'vervet_request_seconds_count{route="/v1/predict"} 2.0' in text
        assert f'model="{shipped.digest}"' in text
        assert counted.count("vervet_windows_total") == 3
        assert counted.count("vervet_streams_open") == counted.count("vervet_waiting") == 0
    captured = capfd.readouterr()
    assert "hidden-name" not in text + captured.out + captured.err


def test_a_fault_of_ours_costs_one_answer_and_its_log_names_no_file(shipped, monkeypatch, caplog):
    def faulty(*arguments):
        raise TypeError(f"about {'hidden'}-name.flac")

    with serving(shipped) as broken:
        monkeypatch.setattr(audio, "opened", faulty)
        monkeypatch.setattr(Stream, "feed", faulty)
        with broken.stream() as websocket:
            websocket.send(bytes(3200))
            assert heard(websocket)[0]["error"]["code"] == "internal"
            assert websocket.close_code == 1011
        response = broken.post(files={"file": ("hidden-name.flac", ANGER.read_bytes())})
        assert error_of(response) == (500, "internal")
        monkeypatch.undo()
        assert broken.post(ANGER.read_bytes()).status_code == 200
    assert "TypeError" in caplog.text
    assert "recording.py" in caplog.text
    assert "hidden-name" not in caplog.text


def test_openapi_holds_what_it_promises(served, shipped):
    api = httpx.get(f"{served.url}/openapi.json").json()
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(api)):
        assert reference in api["components"]["schemas"]
    predict = api["paths"]["/v1/predict"]["post"]
    settings = ["window_s", "hop_s", "speech_only", "channel", "detail"]
    assert [parameter["name"] for parameter in predict["parameters"]] == settings
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/octet-stream"}
    assert set(predict["responses"]) == {"200", "400", "403", "408", "413", "415", "422", "503"}
    for path in ("/v1/predict", "/v1/predict/batch"):
        responses = api["paths"][path]["post"]["responses"]
        example = responses.pop("200")["content"]["application/json"]["example"]
        assert (schema.Recording if path == "/v1/predict" else schema.Batch).model_validate(example)
        for response in responses.values():
            assert schema.Error.model_validate(response["content"]["application/json"]["example"])
    # the example is what the server answers, but for rounding
    told = served.post(files={"file": (ANGER.name, ANGER.read_bytes())}).json()
    assert schema.Recording.model_validate(told, strict=True)
    [heard], [shown] = told.pop("predictions"), schema.RECORDING["predictions"]
    assert told == {name: schema.RECORDING[name] for name in told}
    assert heard.pop("scores") == pytest.approx(shown["scores"], abs=1e-4)
    assert heard == {
        name: pytest.approx(shown[name], abs=1e-4) if name == "confidence" else shown[name] for name in heard
    }


def test_the_page_is_served_with_headers_of_safety(shipped, tmp_path, monkeypatch, served):
    assert "Vervet" in httpx.get(served.url).text
    monkeypatch.setattr(app, "PAGE", tmp_path)
    with serving(shipped) as bare:
        assert "/v1/predict" in httpx.get(bare.url).text
        assert httpx.head(bare.url).status_code == 200
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<title>Vervet</title>")
    (tmp_path / "assets" / "page.js").write_text("1")
    with serving(shipped) as paged:
        page = httpx.get(f"{paged.url}/")
        assert page.text == "<title>Vervet</title>"
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "unsafe-inline" not in page.headers["content-security-policy"]
        assert (page.headers["x-content-type-options"], page.headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert "javascript" in httpx.get(f"{paged.url}/assets/page.js").headers["content-type"]
        assert httpx.get(f"{paged.url}/%2e%2e/app.py").status_code == 404
        assert paged.post(ANGER.read_bytes()).status_code == 200


# --- the command


@contextmanager
def command(*words):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "vervet", "serve", "--port", "0", *words]
    running = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = running.stdout.readline()
        yield running, re.search(r"http://127\.0\.0\.1:\d+", line).group()
    finally:
        running.kill()
        running.communicate()


def test_a_signal_lets_what_has_begun_end(long):
    with (
        command("--jobs", "1", "--grace-s", "1") as (running, url),
        concurrent.futures.ThreadPoolExecutor() as pool,
        connect(f"{url.replace('http', 'ws')}/v1/stream") as websocket,
    ):
        assert httpx.get(f"{url}/readyz").status_code == 200
        begun = pool.submit(httpx.post, f"{url}{LONG}", content=long, timeout=60)
        waiting = re.compile(r"^vervet_waiting 1\.0$", re.M)
        wait_for(lambda: waiting.search(httpx.get(f"{url}/metrics").text))
        running.send_signal(signal.SIGTERM)
        response = httpx.get(f"{url}/readyz")
        assert error_of(response) == (503, "shutting_down")
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert begun.result().status_code == 200
        with pytest.raises(ConnectionClosed):
            websocket.recv(20)
        assert websocket.close_code in (1001, 1012)
        assert running.wait(20) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


@pytest.mark.parametrize("grace_s", ["0", "30"])
def test_a_second_signal_ends_at_once(long, grace_s):
    with (
        command("--jobs", "1", "--grace-s", grace_s) as (running, url),
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        begun = pool.submit(httpx.post, f"{url}{LONGER}", content=long, timeout=60)
        waiting = re.compile(r"^vervet_waiting 1\.0$", re.M)
        wait_for(lambda: waiting.search(httpx.get(f"{url}/metrics").text))
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        running.send_signal(signal.SIGTERM)
        start = time.monotonic()
        running.wait(20)
        assert time.monotonic() - start < 4
        assert error_of(begun.result()) == (503, "shutting_down")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "no-such-host.invalid"], "cannot listen on no-such-host.invalid"),
        (["--port", "70000"], "cannot listen on 127.0.0.1 port 70000"),
        (["--max-bytes", "0"], "--max-bytes 0: give a positive number"),
        (["--jobs", "0"], "0 jobs"),
        (["--grace-s", "nan"], "--grace-s nan: give seconds, 0 or more"),
        (["--model", "gone.onnx"], "no such model"),
        (["--allow-origin", "https://example.org/"], "--allow-origin https://example.org/: give scheme and host alone"),
        (["--allow-origin", "example.org"], "--allow-origin example.org: give scheme and host alone"),
    ],
)
def test_faults_of_the_command_are_named(capsys, words, message):
    assert cli.main(["serve", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys, served):
    assert cli.main(["serve", "--port", str(served.port)]) == 1
    assert f"cannot listen on 127.0.0.1 port {served.port} (Address already in use)" in capsys.readouterr().err


# --- what docs/serving.md tells people to type

DOCS = (ROOT / "docs" / "serving.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_commands_of_the_docs_are_answered(served):
    commands = re.findall(r"^curl .+$", DOCS, re.M)
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command.replace("http://127.0.0.1:8000", served.url))
        done = subprocess.run([*words, "--silent", "--fail"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert {"predictions", "results", "labels"} & set(json.loads(done.stdout))
        if "15a02Wb" in command:
            told = json.loads(done.stdout)
            shown = json.loads(re.search(r"```json\n(.*?)```", DOCS, re.S).group(1))
            for window in (*told["predictions"], *shown["predictions"]):
                window["scores"] = {label: round(score, 4) for label, score in window["scores"].items()}
                window["confidence"] = round(window["confidence"], 4)
            assert told == shown


def test_the_stream_of_the_docs_is_answered(served, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    [code] = re.findall(r"```python\n(.*?)```", DOCS, re.S)
    exec(compile(code.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}"), "serving.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["end_s"] for line in lines] == [1.0, 1.5, 2.0, 2.5, 3.0, pytest.approx(3.17, abs=0.01)]


@pytest.mark.parametrize("duration_s", [600.0, 599.9, 61.3, 7.0])
@pytest.mark.parametrize("window_s", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("detail", [False, True])
def test_the_hop_that_a_refusal_names_is_taken(duration_s, window_s, detail):
    limits = Limits(max_windows=100)
    with pytest.raises(Refused) as refused:
        _check_length("talk.wav", duration_s, Wanted(window_s, 0.005, False, None, detail), limits)
    hop_s = float(re.search(r"a hop of (\S+) s", str(refused.value))[1])
    _check_length("talk.wav", duration_s, Wanted(window_s, hop_s, False, None, detail), limits)


def test_windows_are_counted_as_they_are_cut(shipped):
    for hop_s in (1.0, 3.0, 4.0, 7.0):
        cut = len(shipped((speech(27), RATE), hop_s=hop_s))
        wanted = Wanted(4.0, hop_s, speech_only=False, channel=None, detail=False)
        _check_length("talk.wav", 27.0, wanted, Limits(max_windows=cut))
        with pytest.raises(Refused, match=f"has {cut} windows"):
            _check_length("talk.wav", 27.0, wanted, Limits(max_windows=cut - 1))


def test_a_body_that_is_allowed_can_be_held():
    assert limits_of({"max_bytes": 600_000_000}).max_held_bytes == 600_000_000
    assert limits_of({"max_bytes": None}) == Limits()


def test_what_is_put_back_belongs_to_whoever_takes_it(shipped):
    """A job that another thread took and its client gave up is not closed by the one that had put it back."""

    class Meddling(deque):
        def append(self, job):  # between being put back and the end of it all, the job is taken and given up
            job.given_up = True

    class Steps:
        closed = False

        def close(self):
            self.closed = True

    work = Work(shipped, 1)
    taken, dropped = (_Job(Steps(), None, Meddling()) for _ in range(2))
    dropped.given_up = True
    work._put_back([taken, dropped])
    assert (taken.steps.closed, dropped.steps.closed) == (False, True)
    work.close()


def test_the_limits_of_the_docs_are_those_of_the_command():
    told = dict(re.findall(r"^\| `--([\w-]+)` \| .* \| (\d+) \|$", DOCS, re.M))
    assert len(told) == 5
    for option, default in told.items():
        assert getattr(Limits(), option.replace("-", "_")) == float(default)
