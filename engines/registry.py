"""Names to engines. An engine's code is imported only when it is chosen, and then in its own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from ..codecs import opus
from .base import STEP_LIMIT, Core, Engine
from .hardware import GB, Machine
from .host import HostEngine
from .moshi import config, download
from .moshi.config import LmConfig, ModelError
from .moshi.fit import Device, Fit, fit, repository
from .mouths.mouth import NEEDED as MOUTHS
from .mouths.mouth import missing as without_mouth
from .relay.endpoint import Endpoint

CORES = {
    "cascade": "voice_bridge.engines.cascade.engine:core",
    "echo": "voice_bridge.engines.echo:core",
    "moshi": "voice_bridge.engines.moshi.torch.engine:core",
}
RELAY = "moshi-cloud"
MLX = "voice_bridge.engines.moshi.mlx.engine:core"  # Moshi's for device = mlx
OLDEST = (8, 0)  # compute capability: 16-bit floats and the kernels' instructions begin with Ampere
ECHO_SLOTS = 400  # calls; what one core of bridge carries on the test line is below that
CASCADE_SLOTS = 4  # calls for each core: each has an answer of 0.5 s of work every few seconds
NEEDED = ("safetensors", "sentencepiece", "huggingface_hub")  # what Moshi imports, of the extras [torch] and [mlx]
EAR = ("moonshine_voice", "webrtcvad")  # what moonshine needs, of the extras [local] and [memory]

Program: TypeAlias = Literal["torch", "mlx"]
Options: TypeAlias = Mapping[str, str | int | float | bool]


class NoEngine(Exception):
    """No engine fits; the message is one line with the remedy."""


@dataclass(frozen=True)
class Choice:
    name: str
    reason: str
    options: Options = field(default_factory=dict)
    """What its core is made with."""
    slots: int = ECHO_SLOTS
    """Calls for which there is room."""
    fit: Fit | None = None
    """Of Moshi: how it fits this machine."""
    gpu: str = ""
    """The UUID of the GPU to take, where there are several."""
    endpoints: tuple[Endpoint, ...] = ()
    """Of moshi-cloud: where it goes on."""
    hears: bool = False
    """Whether it tells what callers say, so that nobody else need listen."""


def choose(
    provider: str,
    device: str,
    machine: Machine,
    endpoints: Sequence[Endpoint],
    options: Options | None = None,
    slots: int = 0,
    cascade: Options | None = None,
) -> Choice:
    """Which engine answers, how it is made, and why; raises `NoEngine`.

    `endpoints` are those of moshi-cloud. `options` are Moshi's: model, weights, keys, threads, trace; `cascade` are of
    that engine. What they leave open is filled in. `slots` bounds the calls at once; 0 leaves it to what fits.
    """
    if provider == "moshi":
        moshi = _moshi(device, machine, options or {}, slots)
        return replace(moshi, reason=f"it was asked for: {moshi.reason}")
    if provider == "cascade":
        return _cascade(machine, cascade or {}, slots, "it was asked for")
    if provider == "auto":
        return _auto(device, machine, endpoints, options or {}, slots, cascade or {})
    if provider == "echo":
        return Choice("echo", "it was asked for", slots=slots or ECHO_SLOTS)
    if provider == RELAY:
        return _relay(endpoints, slots, "it was asked for")
    raise NoEngine(f"voice.provider = {provider}: unknown; take auto, {RELAY} or {', '.join(CORES)}")


def make(choice: Choice) -> Engine:
    """The engine, not yet started."""
    if choice.name == RELAY:
        from .relay.engine import RelayEngine

        return RelayEngine(choice.endpoints, choice.slots)
    return HostEngine(
        choice.name,
        _place(choice),
        choice.slots,
        remedy=choice.fit.remedy if choice.fit else "take a faster machine",
        environment={"CUDA_VISIBLE_DEVICES": choice.gpu} if choice.gpu else None,
        **choice.options,
    )


def core(choice: Choice, slots: int, progress: Callable[[str], None], **more: str | int | float | bool) -> Core:
    """The engine's core in this process, without what makes it an engine; `more` goes before the choice's options."""
    place, _, function = _place(choice).rpartition(":")
    make_core: Callable[..., Core] = vars(import_module(place))[function]
    return make_core(slots=slots, progress=progress, **{**choice.options, **more})


def _place(choice: Choice) -> str:
    return MLX if choice.options.get("device") == "mlx" else CORES[choice.name]


def missing(program: Program) -> list[str]:
    """What Moshi needs on torch or MLX, and this installation lacks."""
    return without(program, *NEEDED)


def without(*modules: str) -> list[str]:
    """Which of these are not installed; imports none."""
    return [name for name in modules if find_spec(name) is None]


def _auto(
    device: str,
    machine: Machine,
    endpoints: Sequence[Endpoint],
    options: Options,
    slots: int,
    cascade: Options,
) -> Choice:
    """Moshi where it keeps up, else an engine elsewhere, else the cascade, else the test line.

    Who names endpoints on a machine without a GPU means them: a CPU that keeps up is then taken only by name.
    """
    try:
        moshi = _moshi(device, machine, options, slots)
    except NoEngine as error:
        why = f"because Moshi cannot run here: {error}"
    else:
        on_cpu = moshi.options["device"] == "cpu"
        if moshi.fit and moshi.fit.holds and not (endpoints and on_cpu and device != "cpu"):
            return replace(moshi, reason=f"it fits: {moshi.reason}")
        why = f"because Moshi is too slow here: {moshi.reason}"
    if endpoints:
        return _relay(endpoints, slots, "there is no GPU here that holds Moshi, and there are endpoints")
    try:
        return _cascade(machine, cascade, slots, why)
    except NoEngine as error:
        return Choice("echo", f"the test line, {why}; and no cascade: {error}", slots=slots or ECHO_SLOTS)


def _relay(endpoints: Sequence[Endpoint], slots: int, why: str) -> Choice:
    """Engines elsewhere."""
    if not endpoints:
        raise NoEngine(f"voice.provider = {RELAY} needs voice.endpoint: set it, as wss://gpu.example.com")
    if any(endpoint.wire == "moshi" for endpoint in endpoints) and not opus.available():
        raise NoEngine(f"a server of Moshi's speaks Opus: {opus.REMEDY}")
    names = ", ".join(endpoint.name for endpoint in endpoints)
    return Choice(RELAY, f"{why}: {names}", slots=slots, endpoints=tuple(endpoints))


def _cascade(machine: Machine, options: Options, slots: int, why: str) -> Choice:
    """The cascade with the parts that are installed."""
    asked = str(options.get("mouth", "auto"))
    mouths = list(MOUTHS) if asked == "auto" else [asked]
    voice = str(options.get("voice", ""))
    lacks = {mouth: without(*EAR) + without_mouth(mouth, voice) for mouth in mouths}
    mouth = next((mouth for mouth in mouths if not lacks[mouth]), "")
    if not mouth:
        first = mouths[0]
        remedy = f"`make setup`, or pip install 'voice-bridge[local,{first}]'"
        raise NoEngine(f"{', '.join(lacks[first])} not installed: {remedy}")
    wits = str(options.get("wits", "auto"))
    if wits == "auto":
        wits = "llm" if options.get("url") else "notebook"
    thinks = f"{options.get('model')} at {options.get('url')}" if wits == "llm" else "the built-in notebook"
    return Choice(
        "cascade",
        f"{why}; moonshine listens, {thinks} thinks, {mouth} speaks",
        {**options, "wits": wits, "mouth": mouth},
        slots or CASCADE_SLOTS * machine.cores,
        hears=True,
    )


def _moshi(device: str, machine: Machine, options: Options, slots: int) -> Choice:
    where = _device(device, machine)
    program: Program = "mlx" if where == "mlx" else "torch"
    if lacks := missing(program):
        raise NoEngine(f"{', '.join(lacks)} not installed: `make setup`, or pip install 'voice-bridge[{program}]'")
    model, weights, keys = (str(options.get(name, "")) for name in ("model", "weights", "keys"))
    found = fit(machine, where, weights, keys, model, _shape(model))
    model = model or repository(found.weights, where)
    place = {"cuda": "the GPU", "mlx": f"MLX on {machine.gpu or 'the host'}", "cpu": "the host"}[where]
    if not found.room:
        raise NoEngine(
            f"{model} in {found.weights} needs {found.needed / GB:.1f} GB for one call and {place} has"
            f" {found.free / GB:.1f} GB free: {found.remedy}"
        )
    reason = (
        f"{model} in {found.weights} on {place} takes {found.fixed / GB:.1f} GB and {found.call / GB:.2f} GB a call,"
        f" {found.free / GB:.1f} GB are free; a step takes about {1000 * found.step(1):.0f} ms for one call"
        f" and may take {1000 * STEP_LIMIT:.0f}"
    )
    return Choice(
        "moshi",
        reason,
        {**options, "model": model, "device": where, "weights": found.weights, "keys": found.keys},
        min(slots, found.room) if slots else found.slots,
        found,
        machine.gpu_id if where == "cuda" else "",
    )


def _device(device: str, machine: Machine) -> Device:
    """Where Moshi runs on this machine, or why it cannot."""
    if device == "mlx" or (device == "" and machine.kind == "apple"):
        return "mlx"
    if device == "cuda" and machine.kind != "nvidia":
        raise NoEngine("voice.moshi.device = cuda: no NVIDIA GPU answers here; install its driver, or take cpu")
    if machine.kind != "nvidia" or device == "cpu":
        return "cpu"
    if (0, 0) < machine.capability < OLDEST:
        has, wanted = (".".join(map(str, version)) for version in (machine.capability, OLDEST))
        raise NoEngine(f"the GPU has compute capability {has} and Moshi needs {wanted}: take voice.moshi.device = cpu")
    return "cuda"


def at_hand(model: str) -> Path | None:
    """The folder of a model, if it is on this disk; raises `ModelError` for what cannot be a model's name."""
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else download.cached(*download.identify(model))


def _shape(model: str) -> LmConfig | None:
    """The language model, as far as it can be known without fetching anything."""
    try:
        folder = at_hand(model) if model else None
        return config.read(folder)[0].lm if folder else None
    except ModelError as error:
        raise NoEngine(f"voice.model: {error}") from None
