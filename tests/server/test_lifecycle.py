"""Clients that go away, full queues, keys, host names, heartbeats, and the end of a server."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from helpers.live_server import DEMO_STORE, live_server
from uvicorn.server import ServerState

from edgemoe.api import Stream
from edgemoe.errors import RequestError
from edgemoe.server.answers import Answers, Prepared, Record
from edgemoe.server.events import Progress
from edgemoe.server.failures import Failure
from edgemoe.server.metrics import Metrics
from edgemoe.server.options import Limits, ServerOptions
from edgemoe.server.outbox import Outbox
from edgemoe.server.patience import Patience
from edgemoe.server.protocol import PatientProtocol
from edgemoe.server.running import hang_up_like_sigterm, serve
from edgemoe.server.streaming import LineResponse
from edgemoe.server.waiting import FairQueue

ASK = [{"role": "user", "content": "Tell me a story about a fox."}]
# Ends only when its client leaves: sixteen long answers.
ENDLESS = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 1000, "temperature": 1.5, "n": 16}


def eventually(is_true, what):
    for _ in range(500):
        if is_true():
            return
        time.sleep(0.02)
    raise AssertionError(what)


@contextmanager
def running(url, body=None):
    """An answer that is being streamed; yields its lines, the first of which is there."""
    path = "/v1/completions" if body is None else "/v1/chat/completions"
    body = body or ENDLESS | {"stream": True}
    with httpx.Client(timeout=30) as client, client.stream("POST", f"{url}{path}", json=body) as answer:
        lines = answer.iter_lines()
        yield itertools.chain([next(lines)], lines)


def test_a_client_that_goes_away_stops_the_engine(server):
    queue = server.app.answers.queue
    with running(server.url):
        eventually(lambda: queue.num_running == 1, "nothing runs")
    eventually(lambda: queue.num_running == 0, "the engine still works for nobody")


def test_so_does_one_that_does_not_stream(server):
    queue = server.app.answers.queue
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=ENDLESS, timeout=0.2)
    eventually(lambda: queue.num_running == 0, "the engine still works for nobody")


def test_an_answer_that_has_ended_leaves_nothing_in_memory(server, http):
    def num_streams():
        return sum(type(thing) is Stream for thing in gc.get_objects())

    gc.collect()
    before = num_streams()
    gc.disable()  # what is in a cycle of references stays until Python looks for those
    try:
        for stream in (False, True):
            body = {"model": "demo", "prompt": "Once", "max_tokens": 2, "stream": stream}
            assert http.post("/v1/completions", json=body).status_code == 200
        eventually(lambda: num_streams() <= before, "streams are still there")
    finally:
        gc.enable()


def test_one_that_is_left_is_not_kept_either(server):
    queue = server.app.answers.queue
    gc.collect()
    gc.disable()
    try:
        with running(server.url):
            eventually(lambda: queue.num_running == 1, "nothing runs")
            found = [weakref.ref(thing) for thing in gc.get_objects() if type(thing) is Patience]
        assert found
        eventually(lambda: all(thing() is None for thing in found), "what waited for it stays")
    finally:
        gc.enable()


def test_those_who_wait_can_leave_too(server):
    queue = server.app.answers.queue
    with running(server.url):
        eventually(lambda: queue.num_running == 1, "nothing runs")
        with running(server.url):  # headers and a sign of life come before the queue
            eventually(lambda: queue.num_waiting == 1, "nobody waits")
        eventually(lambda: queue.num_waiting == 0, "a client that has gone still waits")
        assert queue.num_running == 1
    eventually(lambda: queue.num_running == 0, "the engine still works for nobody")


def test_a_full_queue_says_when_to_come_again():
    options = ServerOptions(limits=Limits(num_waiting=1))
    with live_server(aliases=("demo",), options=options) as live, running(live.url), running(live.url):
        eventually(lambda: live.app.answers.queue.num_waiting == 1, "nobody waits")
        third = httpx.post(f"{live.url}/v1/completions", json=ENDLESS)
    assert third.status_code == 429
    assert int(third.headers["retry-after"]) > 0
    assert third.headers["x-should-retry"] == "true"


def test_sixteen_at_once_get_what_each_gets_alone(server, openai_client):
    def ask(number):
        done = openai_client.completions.create(
            model="demo", prompt=f"Number {number} was", max_tokens=6 + number, temperature=0.8, seed=number
        )
        return done.choices[0].text

    alone = [ask(number) for number in range(16)]
    together = [""] * 16

    def keep(number):
        together[number] = ask(number)

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_turns_go_round_among_clients():
    async def run():
        queue, order = FairQueue(1, 16), []

        async def visit(client):
            await queue.enter(client)
            order.append(client)
            await asyncio.sleep(0)
            queue.leave()

        await queue.enter("first")
        tasks = [asyncio.create_task(visit(client)) for client in "aaabc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        queue.leave()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert queue.num_running == 0
        return order

    assert asyncio.run(run()) == ["a", "b", "c", "a"]


def test_a_client_that_takes_nothing_is_given_up():
    async def run():
        is_closed = asyncio.Event()

        async def lines():
            try:
                while True:
                    yield "more"
            finally:
                is_closed.set()

        async def send(message):
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        response = LineResponse(lines(), {}, 0.01)
        with pytest.raises(Failure, match="took nothing"):
            await response({}, asyncio.Event().wait, send)
        assert is_closed.is_set()

    asyncio.run(run())


def test_progress_that_clients_do_not_see_is_silence_to_them(server):
    """A prompt's parts are read more often than heartbeats come."""
    answers = Answers(server.app.shelf, ServerOptions(heartbeat_s=0.02), Metrics())

    async def read_for_ever(prepared, record, emit):
        for done in itertools.count():
            emit((0, Progress(done, done + 1, 0.0)))
            await asyncio.sleep(0.001)

    async def run():
        answers._make = read_for_ever
        events = answers.events(Prepared(None, "demo"), Record())
        try:
            return None in [await anext(events) for _ in range(200)]
        finally:
            await events.aclose()

    assert asyncio.run(run())


class Clock:
    """Calls back when it is told to."""

    def __init__(self):
        self.waiting = []

    def later(self, seconds, function):
        assert seconds == 10
        self.waiting.append(function)
        return self

    def cancel(self):
        del self.waiting[-1]

    def strike(self):
        self.waiting[-1]()


def test_silence_is_broken_by_a_clock_and_what_waits_is_taken_at_once():
    async def run():
        clock = Clock()
        box, seen = Outbox(clock.later), []

        async def take():
            seen.append(await box.take(10))

        async def meanwhile(*happens):
            task = asyncio.create_task(take())
            for happen in happens:
                await asyncio.sleep(0)
                happen()
            await task

        box.put("first")
        box.put("second")
        await take()
        await meanwhile(clock.strike)
        await meanwhile(clock.strike)
        await meanwhile(lambda: box.put("third"))
        box.put("fourth")
        box.replace("fifth")
        box.close(ValueError("broken"))
        await take()
        with pytest.raises(ValueError, match="broken"):
            await take()
        assert not clock.waiting
        return seen

    assert asyncio.run(run()) == [["first", "second"], None, None, ["third"], ["fifth"]]


def test_heartbeats_have_each_protocols_form():
    """While another answer runs, those who wait hear of it every 20 ms."""
    options = ServerOptions(heartbeat_s=0.02)
    body = {"model": "demo", "messages": ASK, "prompt": "x", "max_tokens": 2, "stream": True}
    wanted = {"chat/completions": '"delta":{}', "messages": "event: ping", "completions": '"text":""'}
    with live_server(aliases=("demo",), options=options) as live, running(live.url):
        eventually(lambda: live.app.answers.queue.num_running == 1, "nothing runs")
        for path, mark in wanted.items():
            url = f"{live.url}/v1/{path}"
            with httpx.Client(timeout=30) as client, client.stream("POST", url, json=body) as waiting:
                beats = (line for line in waiting.iter_lines() if mark in line)
                assert len(list(itertools.islice(beats, 3))) == 3, path


def test_keys_are_asked_for_where_there_is_something_to_guard():
    options = ServerOptions(api_key="secret")
    with live_server(aliases=("demo",), options=options) as live, httpx.Client(base_url=live.url) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/").status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/metrics").status_code == 401
        assert client.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/v1/models", headers={"x-api-key": "secret"}).status_code == 200


@pytest.mark.parametrize("is_asked", [False, True])
def test_the_log_has_prompts_and_answers_only_where_they_are_asked_for(is_asked, caplog):
    asked = [
        ("chat/completions", {"messages": [{"role": "user", "content": "A\nsecret fox"}], "max_tokens": 4}),
        ("completions", {"prompt": "A\nsecret fox", "max_tokens": 4}),
    ]
    options = ServerOptions(logs_prompts=is_asked)
    with caplog.at_level("INFO", "edgemoe.server"), live_server(aliases=("demo",), options=options) as live:
        answers = [
            httpx.post(f"{live.url}/v1/{path}", json={"model": "demo", **body}, timeout=60)
            for path, body in asked
        ]
    lines = [record.getMessage() for record in caplog.records]
    assert any("secret fox" in line for line in lines) == is_asked
    told = [line.removeprefix("texts id=").split(" ", 1) for line in lines if line.startswith("texts ")]
    assert [request_id for request_id, _ in told] == [a.headers["x-request-id"] for a in answers][: len(told)]
    if is_asked:
        chat, completion = (json.loads(texts) for _, texts in told)
        assert "A\nsecret fox" in chat["prompt"]
        assert chat["answer"] == answers[0].json()["choices"][0]["message"]["content"]
        assert completion == {"prompt": "A\nsecret fox", "answer": answers[1].json()["choices"][0]["text"]}


def test_foreign_names_and_pages_are_refused(http):
    assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 403
    assert http.get("/v1/models", headers={"origin": "https://evil.example"}).status_code == 403
    own = {"origin": str(http.base_url).rstrip("/")}
    assert http.get("/v1/models", headers=own).status_code == 200


def test_allowed_origins_get_their_headers():
    options = ServerOptions(cors_origins=("https://chat.example",))
    with live_server(aliases=("demo",), options=options) as live, httpx.Client(base_url=live.url) as client:
        answer = client.options("/v1/chat/completions", headers={"origin": "https://chat.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert "Authorization" in answer.headers["access-control-allow-headers"]


def test_bodies_have_a_limit(server):
    options = ServerOptions(limits=Limits(body_bytes=1000))
    with live_server(aliases=("demo",), options=options) as live:
        answer = httpx.post(f"{live.url}/v1/chat/completions", content=b"x" * 1001)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"


def test_unknown_paths_and_methods_have_the_protocols_shape(http):
    assert http.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
    assert http.get("/v1/completions").status_code == 405
    assert http.get("/v1/messages").json()["type"] == "error"


def test_two_stores_share_the_memory():
    with (
        live_server([DEMO_STORE, DEMO_STORE], aliases=("one", "two")) as live,
        httpx.Client(base_url=live.url, timeout=60) as client,
    ):
        texts = []
        for name in ("one", "two", "two", "one"):
            body = {"model": name, "prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}
            answer = client.post("/v1/completions", json=body).json()
            assert answer.get("model") == name, answer
            texts.append(answer["choices"][0]["text"])
            loaded = {m["id"] for m in client.get("/v1/models").json()["data"] if m["meta"]["is_loaded"]}
            assert loaded == {name}
        assert len(set(texts)) == 1


def test_nobody_waits_for_another_model_without_a_sign_of_life():
    """One answer runs; a request for the other model waits for it, and the next for the first behind that."""
    with live_server([DEMO_STORE, DEMO_STORE], aliases=("demo", "other"),
                     options=ServerOptions(parallel=3)) as live, running(live.url):  # fmt: skip
        eventually(lambda: live.app.answers.queue.num_running == 1, "nothing runs")
        other = {"model": "other", "messages": ASK, "max_tokens": 1, "stream": True}
        with running(live.url, other):
            eventually(lambda: live.app.shelf.is_swapping, "nobody waits for the other model")
            with running(live.url, other | {"model": "demo"}) as lines:
                assert '"role":"assistant"' in next(lines)


def test_metrics_count_what_answers_say(server, openai_client, http):
    def count(name):
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))

    before = count("vllm:generation_tokens_total"), count("vllm:prompt_tokens_total")
    usage = openai_client.chat.completions.create(model="demo", messages=ASK, max_tokens=7).usage
    assert count("vllm:generation_tokens_total") - before[0] == usage.completion_tokens
    assert count("vllm:prompt_tokens_total") - before[1] == usage.prompt_tokens
    text = http.get("/metrics").text
    for name in ("edgemoe_expert_hits_total", "edgemoe_budget_bytes", "vllm:num_requests_running"):
        assert f"\n{name} " in text


def test_half_a_head_is_not_waited_for_for_ever():
    class Wire:
        closed = 0

        def close(self):
            self.closed += 1

        def get_extra_info(self, name):
            return None

    class Loop(Clock):
        def call_later(self, seconds, function):
            assert seconds == 60
            self.waiting.append(function)
            return self

    loop, wire, config = Loop(), Wire(), uvicorn.Config(lambda: None, log_config=None, ws="none")
    config.load()
    client = PatientProtocol(config, ServerState(), {}, loop)
    client.connection_made(wire)
    for byte in b"POST /v1/comp":
        client.data_received(bytes([byte]))
    loop.strike()
    assert (len(loop.waiting), wire.closed) == (1, 1)  # one wait, however many bytes
    client.connection_lost(None)
    assert not loop.waiting


def test_a_terminal_that_closes_ends_the_server_as_sigterm_does():
    seen = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    try:
        with hang_up_like_sigterm(lambda number, frame: seen.append(number)):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIGTERM] * 2


@contextmanager
def command():
    """The server as a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemoe", "serve", DEMO_STORE, "--memory", "300MiB", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process, next(line.split()[-1] for line in process.stderr if "listening at" in line)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


LONG = {"model": "demo_store", "messages": ASK, "max_tokens": 300, "stream": True}


def test_sigterm_lets_running_answers_end():
    with command() as (process, url):
        with running(url, LONG) as lines:
            next(line for line in lines if '"content":"' in line)  # it runs
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert rest[-1] == "data: [DONE]"
        finish = [json.loads(line[6:])["choices"][0]["finish_reason"] for line in rest[:-1]]
        assert finish[-1] in {"stop", "length"}
        log = process.stderr.read()
        assert process.wait(30) == 143
        assert "fox" not in log
        assert "finish=" in log


def is_refused(url):
    try:
        httpx.get(f"{url}/health")
    except httpx.TransportError:  # refused, or taken and dropped as the server went
        return True
    return False


def test_a_second_ctrl_c_ends_running_answers_in_a_line():
    with command() as (process, url):
        never = {"0": -100, "2": -100}  # the tokens that would end an answer
        endless = LONG | {"n": 16, "max_tokens": 900, "logit_bias": never}
        with running(url, endless) as lines:
            next(line for line in lines if '"content":"' in line)  # it runs
            process.send_signal(signal.SIGINT)
            eventually(lambda: is_refused(url), "the server goes on listening")
            process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.TransportError):  # ended in the midst, or reset
                list(lines)
        log = process.stderr.read()
        assert process.wait(30) == 130, log
        assert log.splitlines()[-1] == "edgemoe: interrupted"
        assert "Traceback" not in log


def test_an_address_that_somebody_has_is_refused_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(RequestError, match=rf"127\.0\.0\.1, port {port}: Address already in use; choose"):
            serve(tmp_path / "no store at all", options=ServerOptions(port=port))
    with pytest.raises(RequestError, match=r"no such host\.invalid, port 8080: "):
        serve(tmp_path, options=ServerOptions(host="no such host.invalid"))


def test_a_damaged_expert_fails_its_request_and_no_other(tmp_path):
    """The experts of a layer are overwritten while the server runs; what needs none of them goes on."""
    store = shutil.copytree(DEMO_STORE, tmp_path / "demo")
    with live_server(store, aliases=("demo",)) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        file = store / "experts-00000.safetensors"
        with file.open("r+b") as damaged:
            damaged.seek(file.stat().st_size // 4)
            damaged.write(b"\x5a" * (file.stat().st_size // 2))
        body = {"model": "demo", "messages": ASK, "max_tokens": 4}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "engine_error"
        assert "experts-00000.safetensors" in answer.json()["error"]["message"]
        assert answer.headers["x-should-retry"] == "false"
        message = client.post("/v1/messages", json=body)
        assert message.json()["error"]["type"] == "api_error"
        stream = client.post("/v1/chat/completions", json=body | {"stream": True}).text
        assert '"error":' in stream
        assert stream.endswith("data: [DONE]\n\n")
        assert client.post("/v1/messages/count_tokens", json=body).status_code == 200
        assert client.get("/health").status_code == 200
        assert live.app.answers.queue.num_running == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.store"], "nowhere.store"),
        ([DEMO_STORE, "--memory", "1MiB"], "smallest"),
        ([DEMO_STORE, DEMO_STORE], "two stores are called"),
        ([DEMO_STORE, "--api-key", " "], "API key is empty"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, says):
    command = [sys.executable, "-m", "edgemoe", "serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("edgemoe: ")]
    assert says in line
