"""What a checkpoint is, read from its config.json: the one text description that every tensor program shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..base import FRAME

Json: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["moshi", "hibiki", "stt"]
KINDS: tuple[Kind, ...] = ("moshi", "hibiki", "stt")
Prompting: TypeAlias = Literal["plain", "personaplex"]
MOST_KEPT = 1_000_000  # tokens among which one is drawn: more than any model has
HOTTEST = 100.0  # temperature: by then all that is kept is as likely
COLDEST = 0.001  # temperature: by then there is nothing to draw
ROPES = {"rope": "pairs", "rope_concat": "halves", "none": ""}


class ModelError(ValueError):
    """A checkpoint that cannot be used; the message is one line that says why and what to do."""


@dataclass(frozen=True)
class TransformerConfig:
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: tuple[int, ...]
    """Width of the feed-forward block, for each set of weights."""
    context: int
    norm: str = "rms_norm_f32"
    gated: bool = True
    scaled: bool = False
    """Whether each block's output is multiplied by a learnt vector."""
    rope: str = "pairs"
    """How a head's numbers are paired for rotation: "pairs" (neighbours), "halves", or "" for no rotation."""
    max_period: float = 10000.0

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def qkv_dim(self) -> int:
        return self.dim + 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class DepthConfig:
    """The small transformer that writes one frame's codes, one codebook after the other."""

    transformer: TransformerConfig
    schedule: tuple[int, ...]
    """Which set of weights each codebook uses."""
    projections: tuple[int, ...]
    """Which projection of the temporal transformer's output each codebook starts from."""
    low_rank: int = 0
    """Width of its embedding tables before they are projected; 0 when they are as wide as the model."""
    norm: str = ""
    """Norm before each codebook's output; "" is none."""

    @property
    def codebooks(self) -> int:
        return len(self.schedule)


@dataclass(frozen=True)
class Condition:
    """A choice among words, looked up and added to the transformer's input at every step."""

    bins: int
    dim: int
    values: tuple[str, ...]


@dataclass(frozen=True)
class LmConfig:
    text_card: int
    card: int
    streams: int
    """Audio streams read in every step: the model's own first, then the caller's."""
    delays: tuple[int, ...]
    """Frames by which each stream lags behind, text first."""
    temporal: TransformerConfig
    depth: DepthConfig | None
    text_card_out: int
    biased: bool = False
    extra_heads: int = 0
    extra_dim: int = 0
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    padding: int = 3
    end_of_padding: int = 0

    @property
    def own_streams(self) -> int:
        return self.depth.codebooks if self.depth else 0

    @property
    def heard_streams(self) -> int:
        return self.streams - self.own_streams

    @property
    def codebooks(self) -> int:
        """Codebooks of Mimi that this model needs."""
        return max(self.own_streams, self.heard_streams)

    @property
    def max_delay(self) -> int:
        return max(self.delays)


@dataclass(frozen=True)
class MimiConfig:
    filters: int
    dim: int
    ratios: tuple[int, ...]
    """Upsampling of the decoder, stage by stage; the encoder goes the other way."""
    kernel: int
    residual_kernel: int
    last_kernel: int
    compress: int
    transformer: TransformerConfig
    codebook_dim: int
    bins: int
    codebooks: int

    @property
    def stride(self) -> int:
        """Learnt halving between the convolutions' rate and the frame rate."""
        hop = 1
        for ratio in self.ratios:
            hop *= ratio
        return FRAME // hop


@dataclass(frozen=True)
class Sampling:
    audio_temperature: float = 0.8
    audio_top_k: int = 250
    text_temperature: float = 0.7
    text_top_k: int = 25

    def changed(self, asked: Mapping[str, float]) -> Sampling:
        """With what was asked for instead; raises ValueError for what makes no sense."""
        known = [one.name for one in fields(self)]
        for name, value in asked.items():
            if name not in known:
                raise ValueError(f"sampling has no {name!r}: take {', '.join(known)}")
            most = MOST_KEPT if "top_k" in name else HOTTEST
            if not 0 <= value <= most:
                raise ValueError(f"sampling {name} = {value}: take a number from 0 to {most}")
        changes: dict[str, Any] = {
            name: int(value) if "top_k" in name else value if value > COLDEST else 0.0 for name, value in asked.items()
        }
        return replace(self, **changes)


@dataclass(frozen=True)
class ModelConfig:
    kind: Kind
    lm: LmConfig
    mimi: MimiConfig
    sampling: Sampling
    stt_delay: float = 0.0
    """Seconds by which a transcription model writes behind what it hears."""
    stt_prefix: float = 0.0
    """Seconds of silence that it wants to hear first."""
    prompting: Prompting = "plain"
    """How the model has learnt to be told who it is."""


def read(folder: Path) -> tuple[ModelConfig, Json]:
    """The model in a folder and its raw config.json; a folder without one holds the first Moshi 7B."""
    path = folder / "config.json"
    raw: Json = settings(path) if path.exists() else {}
    name = raw.get("mimi_config_name")
    return model(raw, settings(folder / name) if name else {}), raw


def model(raw: Json, mimi: Json) -> ModelConfig:
    """A config.json and a mimi_config.json as dataclasses; raises `ModelError`."""
    kind = raw.get("model_type", "moshi")
    if kind == "tts":
        raise ModelError("a text-to-speech model does not hold a conversation; take a moshi, hibiki or stt model")
    prompting: Prompting = "plain"
    if kind == "personaplex":  # Moshi, with prompts of its own
        kind, prompting = "moshi", "personaplex"
        raw = {**MOSHI_7B, **raw}  # its config.json names nothing but the model
        raw["dep_q"] = raw["n_q"] // 2  # it would also write what the caller says, which is heard instead
    if kind not in KINDS:
        raise ModelError(f"model_type {kind!r} is not known here; take a model of type {', '.join(KINDS)}")
    stt = raw.get("stt_config") or {}
    try:
        lm = _lm(raw or MOSHI_7B)
        return ModelConfig(
            kind=kind,
            lm=lm,
            mimi=_mimi(mimi or MIMI),
            sampling=_sampling(raw.get("lm_gen_config") or {}),
            stt_delay=float(stt.get("audio_delay_seconds", 0.0)),
            stt_prefix=float(stt.get("audio_silence_prefix_seconds", 0.0)),
            prompting=prompting,
        )
    except KeyError as error:
        raise ModelError(
            f"config.json or mimi_config.json has no {error.args[0]}: is the checkpoint complete?"
        ) from error


def settings(path: Path) -> Json:
    """A JSON file of settings as it stands; raises `ModelError`."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds {type(found).__name__}, not the settings of a model")
    return found


def _lm(raw: Json) -> LmConfig:
    _refuse(raw, demux_second_stream=False, demux_second_text_stream=False, norm_emb=False, cross_attention=False)
    own = int(raw["dep_q"])
    if len(raw["delays"]) != raw["n_q"] + 1:
        raise ModelError(f"config.json has {len(raw['delays'])} delays for {raw['n_q'] + 1} streams: they must agree")
    return LmConfig(
        text_card=raw["text_card"],
        text_card_out=raw.get("text_card_out") or raw["text_card"],
        card=raw["card"],
        streams=raw["n_q"],
        delays=tuple(raw["delays"]),
        temporal=_transformer(raw, raw["dim"], (int(raw["hidden_scale"] * raw["dim"]),), raw["context"]),
        depth=_depth(raw, own) if own else None,
        biased=raw.get("bias_proj", False),
        extra_heads=raw.get("extra_heads_num_heads", 0),
        extra_dim=raw.get("extra_heads_dim", 6),
        conditions=_conditions(raw),
        padding=raw.get("existing_text_padding_id", 3),
        end_of_padding=raw.get("existing_text_end_padding_id", 0),
    )


def _depth(raw: Json, codebooks: int) -> DepthConfig:
    """Settings named depformer_* are the depth transformer's own; what it does not set it shares."""
    own = {name.removeprefix("depformer_"): value for name, value in raw.items() if name.startswith("depformer_")}
    merged = {**raw, **own, "norm": raw["norm"], "positional_embedding": own.get("pos_emb", "sin")}
    if own.get("weights_per_step"):
        schedule = tuple(own.get("weights_per_step_schedule") or range(codebooks))
    else:
        schedule = (0,) * codebooks
    if len(schedule) != codebooks:
        raise ModelError(f"depformer_weights_per_step_schedule has {len(schedule)} entries, not dep_q = {codebooks}")
    width = own.get("dim_feedforward") or int(raw["hidden_scale"] * own["dim"])
    widths = tuple(width) if isinstance(width, list) else (width,) * (max(schedule) + 1)
    return DepthConfig(
        transformer=_transformer(merged, own["dim"], widths, codebooks),
        schedule=schedule,
        projections=_projections(own, codebooks),
        low_rank=own.get("low_rank_embeddings") or 0,
        norm=own.get("norm") or "",
    )


def _projections(own: Json, codebooks: int) -> tuple[int, ...]:
    if not own.get("multi_linear"):
        return (0,) * codebooks
    return tuple(own.get("weights_per_step_schedule") or range(codebooks))


def _transformer(raw: Json, dim: int, widths: tuple[int, ...], context: int) -> TransformerConfig:
    if raw["positional_embedding"] not in ROPES:
        raise ModelError(f"positional_embedding {raw['positional_embedding']!r} is not known: {', '.join(ROPES)} are")
    gating = raw.get("gating", "none")
    if gating not in ("silu", "none"):
        raise ModelError(f"gating {gating!r} is not known: silu and none are")
    gated = gating != "none"
    return TransformerConfig(
        dim=dim,
        layers=raw["num_layers"],
        heads=raw["num_heads"],
        kv_heads=raw["num_heads"] // (raw.get("kv_repeat") or 1),
        hidden=tuple(_gated_width(dim, width) if gated else width for width in widths),
        context=context,
        norm=raw["norm"],
        gated=gated,
        scaled=raw.get("layer_scale") is not None,
        rope=ROPES[raw["positional_embedding"]],
        max_period=float(raw.get("max_period", 10000)),
    )


def _gated_width(dim: int, width: int) -> int:
    """A gated block has three matrices where a plain one has two, so two thirds of the width."""
    return 21 * dim // 8 if width == 4 * dim else 2 * width // 3


def _conditions(raw: Json) -> dict[str, Condition]:
    found = {}
    summed = (raw.get("fuser") or {}).get("sum") or []
    for name, entry in (raw.get("conditioners") or {}).items():
        if entry["type"] != "lut" or name not in summed:
            raise ModelError(f"conditioner {name!r} is a {entry['type']}: only lookup tables that are summed are known")
        table = entry["lut"]
        found[name] = Condition(table["n_bins"], table["dim"], tuple(table.get("possible_values") or ()))
    return found


def _mimi(raw: Json) -> MimiConfig:
    seanet, quantizer, transformer = raw["seanet"], raw["quantizer"], raw["transformer"]
    _refuse(seanet, activation="ELU", norm="none", pad_mode="constant", true_skip=True, n_residual_layers=1, channels=1)
    if raw["sample_rate"] != 24000 or raw["frame_rate"] != 12.5:
        raise ModelError(f"a codec of {raw['sample_rate']} Hz and {raw['frame_rate']} frames: only 24000 and 12.5 fit")
    return MimiConfig(
        filters=seanet["n_filters"],
        dim=seanet["dimension"],
        ratios=tuple(seanet["ratios"]),
        kernel=seanet["kernel_size"],
        residual_kernel=seanet["residual_kernel_size"],
        last_kernel=seanet["last_kernel_size"],
        compress=seanet["compress"],
        transformer=_transformer(
            transformer, transformer["d_model"], (transformer["dim_feedforward"],), transformer["context"]
        ),
        codebook_dim=quantizer["dimension"],
        bins=quantizer["bins"],
        codebooks=quantizer["n_q"],
    )


def _sampling(raw: Json) -> Sampling:
    default = Sampling()
    return Sampling(
        audio_temperature=raw.get("temp", default.audio_temperature),
        audio_top_k=raw.get("top_k", default.audio_top_k),
        text_temperature=raw.get("temp_text", default.text_temperature),
        text_top_k=raw.get("top_k_text", default.text_top_k),
    )


def _refuse(raw: Json, **expected: object) -> None:
    """Settings that exist elsewhere and would change the model are not passed over."""
    for name, value in expected.items():
        if raw.get(name, value) != value:
            raise ModelError(f"{name} = {raw[name]!r} is not known here; only {value!r} is")


# The first Moshi repositories have no config.json, and that of PersonaPlex says nothing of this.
MOSHI_7B: Json = {
    "dim": 4096,
    "text_card": 32000,
    "n_q": 16,
    "dep_q": 8,
    "card": 2048,
    "num_heads": 32,
    "num_layers": 32,
    "hidden_scale": 4.125,
    "context": 3000,
    "max_period": 10000,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "depformer_dim": 1024,
    "depformer_dim_feedforward": int(4.125 * 1024),
    "depformer_num_heads": 16,
    "depformer_num_layers": 6,
    "depformer_multi_linear": True,
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
    "delays": [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1],
}
MIMI: Json = {
    "sample_rate": 24000,
    "frame_rate": 12.5,
    "seanet": {
        "dimension": 512,
        "n_filters": 64,
        "ratios": [8, 6, 5, 4],
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 3,
        "compress": 2,
    },
    "quantizer": {"dimension": 256, "n_q": 32, "bins": 2048},
    "transformer": {
        "d_model": 512,
        "num_heads": 8,
        "num_layers": 8,
        "layer_scale": 0.01,
        "context": 250,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 2048,
    },
}
