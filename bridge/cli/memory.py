"""`voice-bridge memory`: what the bridge remembers of its callers, for people."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import asdict, replace
from rich.console import Console

from ..memory.embed import NoEmbedding
from ..memory.kinds import DAY, Candidate, Judged, Memory, Moment, Thought
from ..memory.shelf import MAX_ID
from ..memory.store import CallerSummary, Store
from . import memory_file, memory_show, memory_store, operator
from .memory_store import caller, counted, matched, opened

SHOWN = 50  # memories that are listed without --limit: a few screens
CANDIDATES = 15  # that words alone find: as many as a call looks at
RECENT = 20  # calls that `explain` lists
PAGE = 1000  # memories read at a time where all of them are looked through
NO_CALL = ""  # in which an operator said it
LATEST = 1e12  # seconds since 1970: later than any memory

WHO = "A number with its country code, a key or its beginning, or a name."


def _somebody(who: str | None) -> str | None:
    """An empty variable of a script must not mean everybody."""
    if who is not None and not who.strip():
        raise typer.BadParameter("is empty: give a number, a key or a name, or leave the option out")
    return who


_CALLER = typer.Option("--caller", metavar="WHO", help=WHO, callback=_somebody)
Who = Annotated[str, _CALLER]
Anyone = Annotated[str | None, _CALLER]

memory = typer.Typer(no_args_is_help=True)


@memory.callback()
def about() -> None:
    """Look at what the bridge remembers of its callers, and change it.

    It opens the store itself, whether a bridge runs or not; one that runs sees
    what is changed.

    \b
    Examples:
      voice-bridge memory list
      voice-bridge memory list --caller +15551234567
      voice-bridge memory explain 3f9a1c
    """


@memory.command("list")
def listed(
    who: Anyone = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most, the newest first; 0 is all.")] = SHOWN,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """List the callers of whom something is remembered, or what is remembered of one.

    \b
    Examples:
      voice-bridge memory list
      voice-bridge memory list --caller "+44 20 7946 0018"
      voice-bridge memory list --caller n-3f9a1c2e --limit 0 --json
    """
    given = operator.settings(config).memory
    with opened(given) as store:
        if not who:
            _list_callers(store.callers(), limit, as_json)
            return
        meant = caller(given, store, who)
        found = store.page(meant.key, limit or meant.memories)
        newer = _superseded(store, found)
    if as_json:
        told = ({**_plain(one), "superseded_by": str(newer[one.id]) if one.id in newer else None} for one in found)
        _print_json(list(told))
        return
    console = Console()
    console.print(memory_show.plain(f"{memory_show.whom(meant)}: {counted(meant.memories, 'memory')}"))
    console.print(memory_show.memories(found, newer))
    _print_rest(meant.memories - len(found))


@memory.command()
def search(
    text: Annotated[str, typer.Argument(help="What the caller might say.")],
    who: Who,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Show what would come to mind if a caller said this, and of what the model would be reminded.

    Memories are found as in a call, and judged by the built-in rules. Where there
    is no embedder, they are found by their words alone.

    \b
    Examples:
      voice-bridge memory search "How do I get in tonight?" --caller +15551234567
      voice-bridge memory search "gate code" --caller Anna --json
    """
    from ..memory.recall import Recall  # with the rules of a whole language: other verbs need not wait for them
    from ..memory.think import Rules, choose

    given = operator.settings(config).memory
    moment = Moment(said=text, final=True, before=(), known=frozenset(), now=time.time())
    with opened(given) as store:
        meant = caller(given, store, who)
        try:
            candidates = Recall(store, matched(given, store, as_json)).candidates(meant.key, moment)
        except NoEmbedding as error:
            typer.echo(f"voice-bridge: found by words alone: {error}", err=True)
            candidates = _by_words(store, meant.key, text)
    judged = asyncio.run(Rules().judge(moment, candidates))
    chosen = {one.memory.id for one in choose(judged)}
    judged = [replace(one, injected=one.memory.id in chosen) for one in judged]
    judged.sort(key=memory_show.worth, reverse=True)
    if as_json:
        _print_json([_plain_judged(one) for one in judged])
    else:
        Console().print(memory_show.judged(judged) if judged else "nothing comes to mind")


@memory.command()
def add(
    text: Annotated[str, typer.Argument(help="What to remember, in the caller's words: My gate code is 4417.")],
    who: Who,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Remember something of a caller, as if the caller had said it.

    What it renews is superseded, what it hangs on is linked. The caller may be a
    number that has never called.

    \b
    Examples:
      voice-bridge memory add "My gate code is 4417." --caller +15551234567
      voice-bridge memory add "My sister is called Clara." --caller Anna
    """
    from ..memory.scribe import Scribe  # see `search`

    given = operator.settings(config).memory
    with opened(given, create=True) as store:
        meant = caller(given, store, who, new=True)
        scribe = Scribe(store, matched(given, store, as_json))
        written = scribe.remember(meant.key, NO_CALL, text, time.time())
        renewed = [link.child_id for link in store.linked(one.id for one in written) if link.relation == "supersedes"]
        older = store.get(renewed)
    if not written:
        operator.fail("nothing was remembered: it is known already, tells nothing, or gives an order")
    if as_json:
        _print_json({"remembered": [_plain(one) for one in written], "superseded": [str(id) for id in renewed]})
        return
    for one in written:
        typer.echo(memory_show.plain(f"remembered of {memory_show.whom(meant)}: {one.text}"))
    for one in older:
        typer.echo(memory_show.plain(f"superseded: {one.text}"))


@memory.command()
def forget(
    who: Anyone = None,
    ids: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="One memory; can be repeated.")] = None,
    older: Annotated[float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="All that is old.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything of all callers.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Forget a caller, some memories, what is old, or everything, in the files too.

    An id is what `list` shows, or all of it. With what was said, what was thought
    about it is gone. It cannot be undone.

    \b
    Examples:
      voice-bridge memory forget --caller +15551234567
      voice-bridge memory forget --caller Anna --id 482913 --id 771205
      voice-bridge memory forget --older-than 90 --yes
    """
    if sum((bool(who or ids), older is not None, everything)) != 1:
        raise typer.BadParameter("say what: --caller, --id, --older-than or --all; only the first two go together")
    given = operator.settings(config).memory
    with opened(given) as store:
        if ids:
            key = caller(given, store, who).key if who else ""
            meant = _by_id(store, key, ids)
            said = "\n".join(f"  {memory_show.plain(one.text)}" for one in meant)
            _sure(f"{counted(len(meant), 'memory')}:\n{said}", yes)
            gone = store.forget_memories(one.id for one in meant)
        elif who:
            somebody = caller(given, store, who, new=True)
            _sure(f"{memory_show.whom(somebody)}: {counted(somebody.memories, 'memory')}", yes)
            gone = store.forget(somebody.key)
        else:
            many = counted(store.stats().memories, "memory")
            _sure(f"all that is older than {older:g} days" if older is not None else f"everything, {many}", yes)
            before = LATEST if older is None else time.time() - older * DAY
            gone = store.expire(before, before)
        store.scrub()
    if as_json:
        _print_json({"forgotten": gone})
    else:
        rest = "; the server keeps them in its files until it writes over them" if memory_store.remote(given) else ""
        typer.echo(f"forgot {counted(gone, 'memory')}{rest}")


@memory.command()
def export(
    file: Annotated[Path | None, typer.Argument(dir_okay=False, help="Where to; the terminal if not given.")] = None,
    who: Anyone = None,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Write memories and their links as JSON lines: all of them, or those of a caller.

    Vectors are not written, whoever imports it makes them. The file can be read
    by its owner alone.

    \b
    Examples:
      voice-bridge memory export memories.jsonl
      voice-bridge memory export --caller Anna | jq '.memory.text // empty'
    """
    given = operator.settings(config).memory
    with opened(given) as store:
        lines = store.export(caller(given, store, who).key if who else "")
        count = memory_file.write(lines, file)
    if file:
        told = {"file": str(file), "memories": count}
        typer.echo(json.dumps(told) if as_json else f"wrote {counted(count, 'memory')} to {file}")


@memory.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `export` wrote.")],
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Add the memories of an export; those that are here already stay as they are.

    The file is looked through first: if a line is wrong, nothing is imported.

    \b
    Examples:
      voice-bridge memory import memories.jsonl
      voice-bridge memory import memories.jsonl --config new.toml --json
    """
    memory_file.check(file)
    given = operator.settings(config).memory
    with opened(given, create=True) as store:
        before = store.stats().memories
        with file.open("rb") as lines:
            count = store.import_(memory_file.lines(lines))
        new = store.stats().memories - before
        try:
            matched(given, store, as_json)
        except NoEmbedding as error:
            typer.echo(f"voice-bridge: the bridge gives them vectors at its start: {error}", err=True)
    told = {"memories": count, "new": new}
    typer.echo(json.dumps(told) if as_json else f"read {counted(count, 'memory')}, {new:,} of them new")


@memory.command()
def stats(config: operator.Config = None, as_json: operator.Json = False) -> None:
    """Say how much is remembered, where, since when, and who could read it there.

    \b
    Examples:
      voice-bridge memory stats
      voice-bridge memory stats --json
    """
    given = operator.settings(config).memory
    with opened(given) as store:
        counts, known = store.stats(), store.callers()
    told = {
        "store": given.store,
        "bytes": memory_store.size(given),
        "encryption": memory_store.encryption(given),
        **asdict(counts),
        "oldest": min((one.first for one in known), default=None),
        "newest": max((one.last for one in known), default=None),
    }
    if as_json:
        _print_json(told)
    else:
        Console().print(memory_show.stats(told))


@memory.command()
def explain(
    call: Annotated[str, typer.Argument(help="The call's id or its end; without it the last calls are listed.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Show all candidates.")] = False,
    config: operator.Config = None,
    as_json: operator.Json = False,
) -> None:
    """Show what came to mind in a call: when, why, how near it was, and of what the model was reminded.

    \b
    Examples:
      voice-bridge memory explain
      voice-bridge memory explain 3f9a1c
      voice-bridge memory explain 3f9a1c --all
    """
    given = operator.settings(config).memory
    with opened(given) as store:
        if not call:
            calls = store.calls(RECENT)
            if as_json:
                _print_json([asdict(one) for one in calls])
            else:
                Console().print(memory_show.calls(calls) if calls else "nothing has come to mind in any call yet")
            return
        thoughts = store.thoughts(call)
        people = {one.key: one for one in store.callers()}
    if not thoughts:
        operator.fail(f"nothing came to mind in a call that ends in {call!r}; `voice-bridge memory explain` lists some")
    if as_json:
        _print_json([_plain_thought(one) for one in thoughts])
    else:
        memory_show.explain(Console(), thoughts, people.get(thoughts[0].caller), everything)


def _list_callers(known: Sequence[CallerSummary], limit: int, as_json: bool) -> None:
    shown = known[: limit or None]
    if as_json:
        _print_json([asdict(one) for one in shown])
    else:
        Console().print(memory_show.callers(shown) if known else "nobody is remembered")
        _print_rest(len(known) - len(shown))


def _superseded(store: Store, found: Sequence[Memory]) -> dict[int, int]:
    """Which of them are superseded, and by what."""
    links = store.linked(one.id for one in found)
    return {link.child_id: link.parent_id for link in links if link.relation == "supersedes"}


def _by_words(store: Store, key: str, text: str) -> list[Candidate]:
    from ..memory.english import content_words  # see `search`

    scores = dict(store.search(key, content_words(text), CANDIDATES))
    return [Candidate(one, 0.0, scores[one.id]) for one in store.get(scores)]


def _by_id(store: Store, key: str, wanted: Sequence[str]) -> list[Memory]:
    """The memories whose ids end so, of a caller or of all; ends the program unless each means one."""
    meant: dict[str, list[Memory]] = {id: [] for id in wanted}
    before = MAX_ID
    while page := store.page(key, PAGE, before):
        before = page[-1].id
        for id, found in meant.items():
            found += [one for one in page if id and str(one.id).endswith(id)]
    for id, found in meant.items():
        if not found:
            operator.fail(f"there is no memory whose id ends in {id!r}; `voice-bridge memory list --caller` shows them")
        if len(found) > 1:
            operator.fail(f"{len(found)} ids end in {id!r}: {', '.join(str(one.id) for one in found)}; give more of it")
    return [found[0] for found in meant.values()]


def _sure(what: str, yes: bool) -> None:
    if not yes:
        typer.confirm(f"Forget for ever: {what}\nAre you sure?", abort=True, err=True)


def _print_json(told: object) -> None:
    typer.echo(json.dumps(told))


def _print_rest(count: int) -> None:
    if count:
        typer.echo(f"and {count:,} older: --limit 0 shows all")


def _plain(one: Memory) -> dict[str, Any]:
    """For JSON. An id has more digits than many readers of JSON keep of a number."""
    return {**asdict(one), "id": str(one.id), "entities": asdict(one.entities)}


def _plain_judged(one: Judged) -> dict[str, Any]:
    return {**asdict(one), "memory": _plain(one.memory)}


def _plain_thought(one: Thought) -> dict[str, Any]:
    return {**asdict(one), "judged": [_plain_judged(each) for each in one.judged]}
