"""How good the engine `cascade` is on the telephone: through a real bridge, by callers who listen before they talk.

    python benchmarks/cascade.py all               everything, more than half an hour
    python benchmarks/cascade.py delay barge       some parts
    python benchmarks/cascade.py talk --share 0.2  a fifth of it, for a quick look; `--json` for programs

Parts: delay (last word to first sound), talk (a conversation, judged), barge (speaking up), coughs (what is no word),
slow (pauses inside a sentence), remember, resources (memory and start). Callers have synthetic voices other than the
agent's and are made before the calls begin. What is heard is transcribed after the calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last, so that our folders hide nothing

from cascade_calls import Failed, Result
from cascade_over import barge, coughs
from cascade_resources import resources
from cascade_sounds import missing
from cascade_talk import remember, talk
from cascade_turns import delay, slow
from figures import table

PARTS: dict[str, Callable[[str, float], Awaitable[Result]]] = {
    "resources": resources,  # first: its first start is the cold one
    "delay": delay,
    "talk": talk,
    "barge": barge,
    "coughs": coughs,
    "slow": slow,
    "remember": remember,
}


async def measure(parts: list[str], engine: str, share: float, show: Console | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        began = time.monotonic()
        print(f"{part} ...", file=sys.stderr, flush=True)
        result = await PARTS[part](engine, share)
        taken = time.monotonic() - began
        found[part] = asdict(result) | {"seconds": round(taken)}
        if show:
            for line in result.wrong:
                show.print(f"  {line}", style="dim", markup=False, highlight=False)
            show.print(table(result.rows), f"[bold]{part}[/] took {taken / 60:.1f} min\n")
    return found


def finite(value: Any) -> Any:
    """As JSON has it: what never came is null."""
    match value:
        case dict():
            return {key: finite(each) for key, each in value.items()}
        case list() | tuple():
            return [finite(each) for each in value]
        case float() if math.isinf(value):
            return None
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["all", *PARTS], help="what to measure")
    parser.add_argument("--share", type=float, default=1.0, help="of every set; 1 is all of it")
    parser.add_argument("--engine", default="cascade", help="another engine, to try the callers")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    if lacking := missing():
        sys.exit(f"{' and '.join(lacking)} not found: install with the system's packages, e.g. apt-get install")
    parts = list(PARTS) if "all" in given.parts else given.parts
    console = Console()
    began = time.monotonic()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(parts, given.engine, given.share, None if given.json else console))
    except Failed as failed:
        sys.exit(str(failed))
    seconds = time.monotonic() - began
    if given.json:
        print(json.dumps(finite(found) | {"seconds": round(seconds)}, indent=2))
    else:
        console.print(f"{seconds / 60:.1f} minutes in all")
    if any(row["ok"] is False for result in found.values() for row in result["rows"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
