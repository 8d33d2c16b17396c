"""From a request to its events: the queue, the model, the engine's thread, and the way back.

Every answer is made by a task of its own that holds a place in the queue until the engine is done with it.
Closing the events cancels the task, and with it the engine's work, wherever that is: waiting, loading,
reading the prompt, or writing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import anyio

from edgemoe.api import Constraint
from edgemoe.server.call_memory import CallMemory
from edgemoe.server.constraining import Maker, plan_constraint
from edgemoe.server.conversation import Prompt, answer_begun, render
from edgemoe.server.desk import Desk
from edgemoe.server.dialects import VERBATIM, Dialect, find_dialect
from edgemoe.server.events import Event, Finish, Progress, Text
from edgemoe.server.expert_map import ExpertMap, Frame
from edgemoe.server.failures import Failure
from edgemoe.server.local_model import Cancel, Job, LocalModel
from edgemoe.server.metrics import Metrics
from edgemoe.server.options import ServerOptions
from edgemoe.server.outbox import Outbox
from edgemoe.server.request import AnswerRequest
from edgemoe.server.shelf import Shelf
from edgemoe.server.text_memory import Written
from edgemoe.server.waiting import FairQueue
from edgemoe.server.writer import AnswerWriter

log = logging.getLogger("edgemoe.server")

Told = tuple[int, Event]  # which of the answers to one prompt, and what happened in it
Burst = Sequence[Told] | None  # None: it has been silent for a while
Emit = Callable[[Told], None]


@dataclass
class Record:
    """What is known of one request, for the log and the metrics; times by ``time.monotonic``."""

    client: str = ""
    request_id: str = ""
    arrived_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    model: str = ""
    finish: Finish | None = None
    num_completion: int = 0
    failure: str | None = None  # the code of what broke the answer off


@dataclass(frozen=True)
class Prepared:
    """A request whose prompt is known to fit the model that was in memory when it came."""

    request: AnswerRequest
    name: str
    local: LocalModel | None = None
    prompt: Prompt | None = None


@dataclass(frozen=True)
class _Work:
    """One answer that is to be written."""

    local: LocalModel
    request: AnswerRequest
    prompt: Prompt
    constraint: Constraint | None


class Answers:
    """Answers requests; used by one event loop."""

    def __init__(self, shelf: Shelf, options: ServerOptions, metrics: Metrics) -> None:
        self.shelf = shelf
        self.options = options
        self.metrics = metrics
        self.queue = FairQueue(options.parallel, options.limits.num_waiting)
        self._memory = CallMemory()
        self.watchers: set[Outbox[Frame]] = set()  # pages that show the map of experts
        self._threads = ThreadPoolExecutor(options.parallel, thread_name_prefix="edgemoe-answer")

    async def prepare(self, request: AnswerRequest) -> Prepared:
        """Check all that can be checked before an answer begins, so that errors still have a status.

        Raises:
            Failure: the model is unknown, the template refuses, or the context has no room.
        """
        name = self.shelf.resolve(request.model)
        self.queue.check()
        local = self.shelf.resident
        if local is None or local.name != name or self.shelf.is_swapping:
            return Prepared(request, name)  # nobody waits for another model without a sign of life
        async with self.shelf.use(name) as local:
            prompt = await asyncio.to_thread(render, local, request, self._memory)
            await asyncio.to_thread(self._plan, local, request, prompt)  # a schema that is wrong says so here
            return Prepared(request, name, local, prompt)

    async def count(self, request: AnswerRequest) -> int:
        """How many tokens a request's prompt has."""
        async with self.shelf.use(self.shelf.resolve(request.model)) as local:
            prompt = await asyncio.to_thread(render, local, request, self._memory)
        return len(prompt.token_ids)

    async def events(self, prepared: Prepared, record: Record) -> AsyncGenerator[Burst]:
        """The events of all answers that a request asks for, as many at a time as there are; None after each
        silence of ``heartbeat_s``, in which progress is none that all clients hear. Close it to cancel.

        Raises:
            Failure: the answer cannot be made, or not to its end.
        """
        outbox: Outbox[Told] = Outbox()
        task = asyncio.create_task(self._make(prepared, record, outbox.put))
        task.add_done_callback(lambda done: outbox.close(None if done.cancelled() else done.exception()))
        try:
            heard_s = time.monotonic()
            while (burst := await outbox.take(heard_s + self.options.heartbeat_s - time.monotonic())) != []:
                if burst is None or not all(isinstance(event, Progress) for _, event in burst):
                    heard_s = time.monotonic()
                yield burst
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _make(self, prepared: Prepared, record: Record, emit: Emit) -> None:
        record.model = prepared.name
        await self.queue.enter(record.client)
        started_s = time.monotonic()
        record.started_s = record.started_s or started_s  # a request of several prompts waits for each
        try:
            left_s = self.options.limits.request_s - (started_s - record.arrived_s)
            with anyio.fail_after(left_s):
                await self._answer(prepared, record, emit)
        except TimeoutError:
            message = f"the answer took more than {self.options.limits.request_s:.0f} s"
            raise Failure(504, message, "timeout") from None
        finally:
            self.queue.leave()

    async def _answer(self, prepared: Prepared, record: Record, emit: Emit) -> None:
        request = prepared.request
        async with self.shelf.use(prepared.name) as local:
            prompt = prepared.prompt
            if prompt is None or prepared.local is not local:
                prompt = await asyncio.to_thread(render, local, request, self._memory)
            make_constraint = await asyncio.to_thread(self._plan, local, request, prompt)
            for choice in range(request.num_choices):
                work = _Work(local, request, prompt, make_constraint())
                await self._write(work, choice, record, emit)

    async def _write(self, work: _Work, choice: int, record: Record, emit: Emit) -> None:
        """One answer, from the engine's thread to events."""
        local, request, prompt = work.local, work.request, work.prompt
        writer, cancel = self._writer(local, request, prompt), Cancel()
        loop = asyncio.get_running_loop()
        echo = _text_of(local, prompt) if request.echoes_prompt else ""
        desk = Desk(
            writer,
            cancel,
            lambda event: emit((choice, event)),
            lambda at_s: self._note_token(record, at_s),
            echo,
            counts_each=request.counts_each,
        )
        if echo and request.num_top_logprobs is None:
            emit((choice, Text(echo)))
        job = _job(work, choice, self._hidden(local, request))

        def tell(frame: Frame) -> None:
            loop.call_soon_threadsafe(self._show, frame)

        observer = ExpertMap(local.model, tell) if self.watchers else None
        running = loop.run_in_executor(self._threads, local.run, job, desk.push, cancel, observer)
        try:
            end = await desk.ended
        finally:
            cancel.set()
            await asyncio.wait([running])
            if self.options.logs_prompts:
                _log_texts(record, local, prompt, writer.written)
            if prompt.text and request.messages is not None:
                local.texts.keep(writer.written)
        if end.error is not None:
            raise end.error
        if observer is not None:
            observer.finish()
        last = writer.finish(end)
        if writer.calls and (turn := writer.turn()).text:
            self._memory.keep(turn)
        for event in last:
            if isinstance(event, Finish):
                record.finish = event
                record.num_completion += event.usage.num_completion
                self.metrics.answered(record, event, is_first=choice == 0)
            emit((choice, event))

    def _writer(self, local: LocalModel, request: AnswerRequest, prompt: Prompt) -> AnswerWriter:
        dialect = self._manner(local, request)
        begun = answer_begun(request)
        reader = dialect.reader(prompt.text, request.tools, takes_calls=bool(request.tools), begun=begun)
        return AnswerWriter(
            reader,
            request.stop,
            Written(prompt.text, prompt.token_ids),
            only_one_call=not request.allows_parallel_calls,
        )

    def _manner(self, local: LocalModel, request: AnswerRequest) -> Dialect:
        """How the answer is written: only in conversations are there thoughts and calls."""
        return VERBATIM if request.messages is None else self.dialect(local)

    def _hidden(self, local: LocalModel, request: AnswerRequest) -> frozenset[int]:
        """Special tokens that are no text: none of those that clients wait for, or asked for."""
        if request.shows_special:
            return frozenset()
        return local.hidden_ids([*self._manner(local, request).written, *request.stop])

    def _plan(self, local: LocalModel, request: AnswerRequest, prompt: Prompt) -> Maker:
        return plan_constraint(local, self._manner(local, request), request, prompt.text)

    def dialect(self, local: LocalModel) -> Dialect:
        """How the model writes thoughts and calls."""
        return find_dialect(local.template)

    def _show(self, frame: Frame) -> None:
        """Hand a map to the pages; one that is slow gets the newest."""
        for frames in self.watchers:
            frames.replace(frame)

    def _note_token(self, record: Record, at_s: float) -> None:
        if record.first_s is None:
            record.first_s = at_s
            self.metrics.first_token(record)
        elif record.last_s is not None:
            self.metrics.next_token(record.model, at_s - record.last_s)
        record.last_s = at_s

    def close(self) -> None:
        """Let the threads end; call it when no answer runs."""
        self._threads.shutdown(wait=False)


def _text_of(local: LocalModel, prompt: Prompt) -> str:
    return prompt.text or local.model.tokenizer.decode_all(prompt.token_ids)


def _log_texts(record: Record, local: LocalModel, prompt: Prompt, written: Written) -> None:
    """A line with a prompt and what was written to it, also where the client left before the end."""
    texts = {
        "prompt": _text_of(local, prompt),
        "answer": written.answer,
    }
    log.info("texts id=%s %s", record.request_id, json.dumps(texts))


def _job(work: _Work, choice: int, hidden_ids: frozenset[int]) -> Job:
    local, request, prompt = work.local, work.request, work.prompt
    draw = request.draw.given()
    if choice and "seed" in draw:
        draw["seed"] += choice  # answers to one prompt differ, and come again with the same seed
    ends_turns = request.messages is not None or request.schema is not None
    stop_ids = local.stop_ids if ends_turns else local.model.tokenizer.stop_ids
    return Job(
        prompt.token_ids,
        prompt.max_tokens,
        draw,
        stop_ids,
        request.num_top_logprobs,
        work.constraint,
        scores_prompt=request.echoes_prompt and request.num_top_logprobs is not None,
        only_scores=request.only_scores,
        only_reads=request.only_reads,
        stops=request.stop,
        hidden_ids=hidden_ids,
    )
