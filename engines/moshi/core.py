"""Moshi as a core: many calls on one model. Everything about a call but its tensors, whatever the framework."""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..base import FRAME, OPENING, RATE, Cut, Event, Injected, Opening, Refused, Sound
from .model import Floats, Ints, Model, Place, noise
from .rows import ADD, Rows
from .script import Script
from .slot import Added, Renewal, Slot
from .tokenizer import Tokenizer

KEPT = 375  # rows (30 s) of talk that a renewed call goes on from
RENEW = 0.8  # of the context: from here on a call is renewed, in time to wait for a pause
OVERDUE = 0.95  # of the context: from here on without waiting for one
PAUSE = 6  # padding tokens in a row (half a second) that count as the agent's pause
SPEECH = 0.016  # RMS of a frame that counts as the caller's voice: -36 dB of full scale
SURE = 3  # frames of voice in a row that interrupt what is said: a click or a cough is shorter
SLICES = (8, 16, 32, 64, 128, 256)  # rows read at once: fewer take as long, as the weights are read anyway
SLICE = 0.004  # seconds that a slice may take, so that several fit between two steps
DEARER = 2.0  # times the least slice, if that takes longer: more rows in as good as one reading of the weights
REHEARSALS = 3  # steps of each size; the fastest counts, as others may be busy while we start
ADDED = 38  # frames (3 s) that a vector stays on the input: the answer that comes, and not the one after it

DONE = object()  # what a job without slices left gives


class Launched(NamedTuple):
    began: float
    due: list[Slot]
    opening: list[Slot]
    pending: Any


class MoshiCore:
    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        slots: int,
        kept: int = KEPT,
        voice: str = "",
        trace: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`model` has `slots` slots, and one row of keys and values more.

        `voice` names a recording of how the agent shall speak, for models that take one, and `trace` a file to
        which every step's tokens are written.
        """
        self._model = model
        self._lm = model.config.lm
        self._tokenizer = tokenizer
        self._clock = clock
        self._context = self._lm.temporal.context
        self._kept = min(kept, self._context // 4)
        self._slots: dict[int, Slot] = {}
        self._rows = list(range(slots, -1, -1))  # free rows of keys and values
        self._busy: deque[Slot] = deque()  # those with jobs
        self._events: list[tuple[int, Event]] = []
        self._slice = SLICES[0]  # rows read at once; found out by measuring
        self._steps_of = list(_doubling(slots))
        self._seconds = [0.0] * len(self._steps_of)  # a step takes with so many calls of full age
        self._slower = 1.0  # than that, as of late
        self._given = Rows(model, tokenizer, voice)
        self._trace = Path(trace) if trace else None

    def rehearse(self, on_progress: Callable[[int], None] = lambda n: None) -> None:
        """Run steps with as many calls as there may be, each of full age: what they take decides how many may come."""
        sampling = self._model.config.sampling
        for index, n in enumerate(self._steps_of):
            on_progress(n)
            pcm = np.zeros((n, FRAME), np.float32)
            top_k = sampling.text_top_k, sampling.audio_top_k
            places = [Place(i, i, self._context - 1, 9, 9, 9, -1, *top_k) for i in range(n)]
            chances = np.full((n, 3 + self._lm.own_streams), 0.5, np.float32)
            chances[:, :2] = sampling.text_temperature, sampling.audio_temperature
            taken = []
            for _ in range(REHEARSALS):
                began = self._clock()
                self._model.collect(self._model.tick(pcm, np.array(places), chances, None))
                taken.append(self._clock() - began)
            self._seconds[index] = min(taken)
        self._slice = self._best_slice()

    def _best_slice(self) -> int:
        """The most rows that are read in `SLICE` seconds, or in little more than the fewest are."""
        limit, best = SLICE, SLICES[0]
        for rows in SLICES:
            taken = []
            for _ in range(REHEARSALS):
                began = self._clock()
                self._model.read(self._rows[0], 0, self._given.silent.repeat(rows, axis=0), None)
                taken.append(self._clock() - began)
            if rows == SLICES[0]:
                limit = max(SLICE, DEARER * min(taken))
            if min(taken) > limit or rows > self._context:
                break
            best = rows
        return best

    def open(self, slot: int, opening: Opening) -> None:
        sampling = self._model.config.sampling.changed(opening.sampling)
        persona = self._given.prompt(opening.persona)
        known = self._given.known(opening.known, persona)
        vector = self._given.condition(opening.conditions)
        room = self._given.room(opening.share)
        script = self._script()
        if opening.greeting and self._lm.own_streams:
            script.say(OPENING, opening.greeting, opening.interruptible)
        seed = secrets.randbits(64) if opening.seed is None else opening.seed
        call = Slot(slot, opening.call, self._rows.pop(), script, sampling, seed, persona, known, vector, room)
        self._slots[slot] = call
        self._model.add(slot, vector)
        if opening.known:
            self._events.append((slot, Injected(OPENING) if len(known) else Refused(OPENING)))
        if len(persona) + len(known):
            self._begin(call, self._prepare(call))
        else:
            call.live = True

    def say(self, slot: int, id: int, text: str, interruptible: bool) -> None:
        if not self._lm.own_streams:
            raise ValueError("a transcription model does not speak")
        self._slots[slot].script.say(id, text, interruptible)

    def inject(self, slot: int, id: int, context: str, how: str, turn: int | None) -> None:
        call = self._slots[slot]
        if how == ADD:
            call.added.append(Added(self._given.vector(context), call.steps + ADDED))
            self._add_up(call)
            self._events.append((slot, Injected(id)))
            return
        rows = self._given.context(context, how, call.room)
        call.room -= len(rows)
        job = self._take_in(call, id, rows)
        if call.steps:
            self._begin(call, job)
        else:
            call.early.append(job)

    def cancel(self, slot: int, id: int) -> None:
        if self._slots[slot].script.cancel(id):
            self._events.append((slot, Cut(id)))

    def forget(self, slot: int) -> None:
        """A renewal brings nothing of it along; the model itself forgets what it has read with the call's age."""
        call = self._slots[slot]
        call.memories.clear()
        call.known = call.known[:0]

    def played(self, slot: int, at: int) -> None:
        """The model does not know how late its voice is heard."""

    def digit(self, slot: int, digit: str) -> None:
        """The model has not learnt about keys."""

    def close(self, slot: int) -> None:
        call = self._slots.pop(slot)
        self._rows.append(call.row)
        if call.renewal:
            self._rows.append(call.renewal.row)
        if call.jobs:
            self._busy.remove(call)
        self._events = [event for event in self._events if event[0] != slot]

    def launch(self, slots: Sequence[int], frames: Floats, at: Sequence[int]) -> Launched:
        calls = [self._slots[slot] for slot in slots]
        for call, frame, now in zip(calls, frames, at, strict=True):
            call.at = now
            if call.live:
                self._listen(call, frame)
        here = [index for index, call in enumerate(calls) if call.live]
        due = [calls[index] for index in here]
        began = self._clock()
        pending = None
        if due:
            heard = np.nan_to_num(frames[here], posinf=1.0, neginf=-1.0)  # one NaN would never leave its slot
            pending = self._model.tick(heard, self._places(due), self._chances(due), self._replaced(due))
        return Launched(began, due, [call for call in calls if not call.live], pending)

    def collect(self, pending: Launched) -> list[tuple[int, Event]]:
        events, self._events = self._events, []
        events += [(call.index, Sound(np.zeros(FRAME, np.float32), call.at)) for call in pending.opening]
        if not pending.due:
            return events
        heard = self._model.collect(pending.pending)
        usual = self._rehearsed(len(pending.due))
        if usual:
            self._slower += 0.05 * ((self._clock() - pending.began) / usual - self._slower)
        for index, call in enumerate(pending.due):
            text, complete = int(heard.text[index]), heard.complete[index]
            events.append((call.index, self._sound(call, heard.sound[index])))
            lag = self._lm.max_delay * FRAME
            events += [(call.index, event) for event in call.script.took(text, call.at + lag, call.at + lag + FRAME)]
            self._went_on(call, heard.row[index])
            if self._trace:
                self._write(call, text, complete)
        return events

    def work(self, budget: float) -> bool:
        deadline = self._clock() + budget
        while self._busy and self._clock() < deadline:
            call = self._busy.popleft()
            done = next(call.jobs[0], DONE) is DONE
            if done:
                call.jobs.popleft()
            if call.jobs:
                self._busy.append(call)
        return bool(self._busy)

    def step_time(self, n: int) -> float:
        return self._rehearsed(n) * max(1.0, self._slower)

    def device_memory(self) -> int:
        return self._model.memory()

    def _rehearsed(self, n: int) -> float:
        return float(np.interp(n, self._steps_of, self._seconds))

    def _script(self) -> Script:
        config, no_text = self._model.config, (self._lm.padding, self._lm.end_of_padding)
        if config.kind == "stt":
            return Script(self._tokenizer, *no_text, "caller", round(config.stt_delay * RATE))
        return Script(self._tokenizer, *no_text)

    # The step of one call

    def _places(self, due: list[Slot]) -> Ints:
        places = []
        for call in due:
            forced = call.script.next()
            sampling = call.sampling
            heard = max(0, call.steps - 1)  # the first frame is not heard: the model begins with a row of its own
            places.append(
                Place(
                    call.index,
                    call.row,
                    call.position,
                    call.frame,
                    heard,
                    call.spoken,
                    -1 if forced is None else forced,
                    sampling.text_top_k,
                    sampling.audio_top_k,
                )
            )
        return np.array(places, np.int64)

    def _chances(self, due: list[Slot]) -> Floats:
        temperatures = [(call.sampling.text_temperature, call.sampling.audio_temperature) for call in due]
        drawn = noise([call.seed for call in due], [call.frame for call in due], 1 + self._lm.own_streams)
        return np.concatenate([np.array(temperatures, np.float32), drawn], axis=1)

    def _replaced(self, due: list[Slot]) -> Ints | None:
        if all(call.given is None for call in due):
            return None
        given = np.full((len(due), 1 + self._lm.streams), -1, np.int64)
        for index, call in enumerate(due):
            if call.given is not None:
                given[index], call.given = call.given, None
        return given

    def _sound(self, call: Slot, sound: Floats) -> Sound:
        ready = call.steps > 0 and call.frame + 1 > self._lm.max_delay
        call.spoken += ready
        return Sound(sound if ready else np.zeros(FRAME, np.float32), call.at)

    def _went_on(self, call: Slot, row: Ints) -> None:
        if call.steps > 0:  # the first row is the model's own or the persona's last
            call.talk.append(row)
            call.talked += 1
            if not call.renewal and len(call.talk) > self._kept:
                call.talk.popleft()
        for job in call.early:
            self._begin(call, job)
        call.early.clear()
        call.steps += 1
        call.frame += 1
        call.position += 1
        if any(one.until == call.steps for one in call.added):
            call.added = [one for one in call.added if one.until > call.steps]
            self._add_up(call)
        self._look_after(call)

    def _add_up(self, call: Slot) -> None:
        self._model.add(call.index, sum((one.vector for one in call.added), call.vector))

    def _listen(self, call: Slot, frame: Floats) -> None:
        """A caller who speaks interrupts what may be interrupted."""
        loud = float(np.dot(frame, frame)) > SPEECH * SPEECH * FRAME
        call.voiced = call.voiced + 1 if loud else 0
        if call.voiced == SURE:
            self._events += [(call.index, event) for event in call.script.interrupt()]

    def _write(self, call: Slot, text: int, complete: Ints) -> None:
        assert self._trace
        line = {"call": call.call, "frame": call.frame - 1, "text": text, "complete": complete.tolist()}
        with self._trace.open("a") as file:
            file.write(json.dumps(line) + "\n")

    # What is done between steps

    def _begin(self, call: Slot, job: Iterator[None]) -> None:
        call.jobs.append(job)
        if len(call.jobs) == 1:
            self._busy.append(call)

    def _prepare(self, call: Slot) -> Iterator[None]:
        """Give a call its persona, and what is known of the caller; the last row is read with its first frame."""
        *rows, last = np.concatenate([self._given.first, call.persona, call.known])
        yield from self._read(call, call.row, call, np.stack(rows))
        self._model.fill(call.index, self._given.silent[0])
        call.given = last
        call.frame = self._lm.max_delay + 1
        call.live = True

    def _take_in(self, call: Slot, id: int, rows: Ints) -> Iterator[None]:
        """Context that is not spoken: behind the last row that was read, before the one that comes."""
        yield from self._read(call, call.row, call, rows)
        call.memories.append(rows)
        if call.renewal:
            call.renewal.later.append(rows)
        self._events.append((call.index, Injected(id)))

    def _read(self, call: Slot, row: int, into: Slot | Renewal, rows: Ints) -> Iterator[None]:
        """Read rows in slices."""
        while len(rows):
            part, rows = rows[: self._slice], rows[self._slice :]
            self._model.read(row, into.position, part, call.vector)
            into.position += len(part)
            if len(rows):
                yield

    # Renewal

    def _look_after(self, call: Slot) -> None:
        """Renew a call that nears the end of what the model was trained for."""
        renewal = call.renewal
        if renewal is None:
            renewing = any(other.renewal for other in self._slots.values())
            if self._is_old(call) and not renewing and not call.jobs:
                call.renewal = Renewal(self._rows.pop(), taken=call.talked - len(call.talk))
                self._begin(call, self._renew(call, call.renewal))
            elif self._is_old(call):
                for other in self._slots.values():  # one that waits for a pause may be on hold
                    self._go_over(other)
        else:
            self._go_over(call)

    def _go_over(self, call: Slot) -> None:
        """Bring a renewal that waits to its end, if it may."""
        renewal = call.renewal
        if renewal and renewal.waiting and self._may_change(call):
            renewal.waiting = False
            self._begin(call, self._catch_up(call, renewal))

    def _is_old(self, call: Slot) -> bool:
        return call.position >= RENEW * self._context

    def _may_change(self, call: Slot) -> bool:
        """In a pause; or at once when it is high time, or when another call waits for the spare row."""
        others = any(self._is_old(other) for other in self._slots.values() if other is not call)
        return call.script.transcript.quiet >= PAUSE or others or call.position >= OVERDUE * self._context

    def _renew(self, call: Slot, renewal: Renewal) -> Iterator[None]:
        rows = np.concatenate([self._given.first, call.persona, call.known, *call.memories])
        yield from self._read(call, renewal.row, renewal, rows)
        yield from self._catch_up(call, renewal)

    def _catch_up(self, call: Slot, renewal: Renewal) -> Iterator[None]:
        while renewal.later or renewal.taken < call.talked:
            if renewal.later:
                rows = renewal.later.pop(0)
            else:
                rows = np.stack(list(call.talk)[renewal.taken - call.talked :])
                renewal.taken = call.talked
            yield from self._read(call, renewal.row, renewal, rows)
        if not self._may_change(call):
            renewal.waiting = True
            return
        self._rows.append(call.row)
        call.row, call.position, call.renewal = renewal.row, renewal.position, None
        while len(call.talk) > self._kept:
            call.talk.popleft()


def _doubling(slots: int) -> Iterator[int]:
    n = 1
    while n < slots:
        yield n
        n *= 2
    yield slots
