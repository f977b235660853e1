"""How the parts of a checkpoint are called: its files, the tensors that a model needs, and their names elsewhere.

The names used here are those of the newer torch exports, with one tensor for each set of weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .config import Json, LmConfig, MimiConfig, ModelError, TransformerConfig, settings

Shape: TypeAlias = tuple[int, ...]

INDEX = ".index.json"
WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "model.q8.safetensors", "model.q4.safetensors")
MIMI = "tokenizer-e351c8d8-checkpoint125.safetensors"
TOKENIZER = "tokenizer_spm_32k_3.model"
VOICES = "voices.tgz"  # what PersonaPlex speaks with

# Older spellings of a codebook's two tensors.
CODEBOOK = {"cluster_usage": ("cluster_size",), "embedding_sum": ("embed_avg", "embed_sum")}


@dataclass(frozen=True)
class Files:
    """The files of a checkpoint as its config.json names them: in its folder, or `hf://owner/name/file` elsewhere."""

    weights: str
    mimi: str
    tokenizer: str
    mimi_config: str = ""
    lora: str = ""
    voices: str = ""

    def __iter__(self) -> Iterator[str]:
        """Those that there are, the small ones first."""
        names = (self.mimi_config, self.tokenizer, self.voices, self.mimi, self.lora, self.weights)
        return iter([name for name in names if name])


def files(raw: Json, present: Collection[str]) -> Files:
    """What a checkpoint with this config.json consists of; `present` are the files beside it."""
    keys = ("moshi_name", "mimi_name", "tokenizer_name", "mimi_config_name", "lora_name")
    named, mimi, tokenizer, mimi_config, lora = (_inside(raw.get(key) or "") for key in keys)
    candidates = (named, f"{named}{INDEX}") if named else WEIGHTS
    return Files(
        weights=next((name for name in candidates if name in present), named or WEIGHTS[0]),
        mimi=mimi or MIMI,
        tokenizer=tokenizer or TOKENIZER,
        mimi_config=mimi_config,
        lora=lora,
        voices=VOICES if raw.get("model_type") == "personaplex" and VOICES in present else "",
    )


def shards(index: Path) -> list[str]:
    """The files over which an index spreads a model."""
    try:
        return sorted({_inside(name) for name in settings(index)["weight_map"].values()})
    except (KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is no index of weights: download it again") from error


def elsewhere(name: str) -> tuple[str, str] | None:
    """(owner/name, file) of `hf://owner/name/file`, and None for a name that belongs to the checkpoint itself."""
    found = re.fullmatch(r"hf://([^/]+/[^/]+)/(.+)", name)
    return (found[1], found[2]) if found else None


def _inside(name: object) -> str:
    """A name that somebody else's file gives, which must not lead out of the model's folder."""
    if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/"):
        raise ModelError(f"config.json names a file {name!r}, which is not in the model's folder")
    return name


def lm_tensors(config: LmConfig) -> dict[str, Shape]:
    """Every tensor of the language model."""
    dim = config.temporal.dim
    found: dict[str, Shape] = {"text_emb.weight": (config.text_card + 1, dim)}
    found |= {f"emb.{i}.weight": (config.card + 1, dim) for i in range(config.streams)}
    found |= _transformer("transformer", config.temporal)
    found |= _norm("out_norm", config.temporal.norm, dim)
    found |= _output("text_linear", config.text_card_out, dim, config.biased)
    found |= {f"extra_heads.{i}.weight": (config.extra_dim, dim) for i in range(config.extra_heads)}
    for name, condition in config.conditions.items():
        at = f"condition_provider.conditioners.{name}"
        found[f"{at}.embed.weight"] = (condition.bins + 1, condition.dim)
        found[f"{at}.output_proj.weight"] = (dim, condition.dim)
        found[f"{at}.learnt_padding"] = (1, 1, dim)
    return found | _depth(config)


def _depth(config: LmConfig) -> dict[str, Shape]:
    if config.depth is None:
        return {}
    depth, dim = config.depth, config.depth.transformer.dim
    projections = range(max(depth.projections) + 1)
    found: dict[str, Shape] = {f"depformer_in.{i}.weight": (dim, config.temporal.dim) for i in projections}
    tables = {"depformer_text_emb": config.text_card + 1}
    tables |= {f"depformer_emb.{i}": config.card + 1 for i in range(depth.codebooks - 1)}
    for table, card in tables.items():
        found[f"{table}.weight"] = (card, depth.low_rank or dim)
        if depth.low_rank:
            found[f"{table}.low_rank.weight"] = (dim, depth.low_rank)
    found |= _transformer("depformer", depth.transformer, stepped=True)
    for i in range(depth.codebooks):
        if depth.norm:
            found |= _norm(f"depformer_norms.{i}", depth.norm, dim)
        found |= _output(f"linears.{i}", config.card, dim, config.biased)
    return found


def _transformer(prefix: str, config: TransformerConfig, stepped: bool = False) -> dict[str, Shape]:
    """`stepped`: whether the feed-forward blocks are numbered, one for each set of weights."""
    dim = config.dim
    found: dict[str, Shape] = {}
    for at in (f"{prefix}.layers.{layer}" for layer in range(config.layers)):
        for i, hidden in enumerate(config.hidden):
            found[f"{at}.self_attn.in_projs.{i}.weight"] = (config.qkv_dim, dim)
            found[f"{at}.self_attn.out_projs.{i}.weight"] = (dim, dim)
            if config.gated:
                gating = f"{at}.gating.{i}" if stepped else f"{at}.gating"
                found[f"{gating}.linear_in.weight"] = (2 * hidden, dim)
                found[f"{gating}.linear_out.weight"] = (dim, hidden)
            else:
                found[f"{at}.linear1.weight"] = (hidden, dim)
                found[f"{at}.linear2.weight"] = (dim, hidden)
        for i in (1, 2):
            found |= _norm(f"{at}.norm{i}", config.norm, dim)
            if config.scaled:
                found[f"{at}.layer_scale_{i}.scale"] = (dim,)
    return found


def _norm(name: str, kind: str, dim: int) -> dict[str, Shape]:
    if kind.startswith("rms_norm"):
        return {f"{name}.alpha": (dim,)}
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _output(name: str, card: int, dim: int, biased: bool) -> dict[str, Shape]:
    found: dict[str, Shape] = {f"{name}.weight": (card, dim)}
    return found | {f"{name}.bias": (card,)} if biased else found


def mimi_tensors(config: MimiConfig, codebooks: int) -> dict[str, Shape]:
    """Every tensor of Mimi with so many codebooks."""
    found: dict[str, Shape] = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        found[f"{name}.conv.conv.weight"] = (outputs, inputs, kernel)
        found[f"{name}.conv.conv.bias"] = (outputs,)

    def residual(name: str, width: int) -> None:
        conv(f"{name}.block.1", width // config.compress, width, config.residual_kernel)
        conv(f"{name}.block.3", width, width // config.compress, 1)

    width, last = config.filters, 3 * len(config.ratios) + 2
    conv("encoder.model.0", width, 1, config.kernel)
    for stage, ratio in enumerate(reversed(config.ratios)):
        residual(f"encoder.model.{3 * stage + 1}", width)
        conv(f"encoder.model.{3 * stage + 3}", 2 * width, width, 2 * ratio)
        width *= 2
    conv(f"encoder.model.{last}", config.dim, width, config.last_kernel)
    conv("decoder.model.0", width, config.dim, config.kernel)
    for stage, ratio in enumerate(config.ratios):
        upward = f"decoder.model.{3 * stage + 2}.convtr.convtr"
        found[f"{upward}.weight"] = (width, width // 2, 2 * ratio)
        found[f"{upward}.bias"] = (width // 2,)
        width //= 2
        residual(f"decoder.model.{3 * stage + 3}", width)
    conv(f"decoder.model.{last}", 1, width, config.last_kernel)

    found["downsample.conv.conv.conv.weight"] = (config.dim, config.dim, 2 * config.stride)
    found["upsample.convtr.convtr.convtr.weight"] = (config.dim, 1, 2 * config.stride)
    for side in ("encoder", "decoder"):
        found |= _transformer(f"{side}_transformer.transformer", config.transformer)
    for part, count in (("rvq_first", 1), ("rvq_rest", codebooks - 1)):
        at = f"quantizer.{part}"
        found[f"{at}.input_proj.weight"] = (config.codebook_dim, config.dim, 1)
        found[f"{at}.output_proj.weight"] = (config.dim, config.codebook_dim, 1)
        for i in range(count):
            found[f"{at}.vq.layers.{i}._codebook.embedding_sum"] = (config.bins, config.codebook_dim)
            found[f"{at}.vq.layers.{i}._codebook.cluster_usage"] = (config.bins,)
    return found


def mlx_names(config: LmConfig) -> dict[str, str]:
    """What the MLX repositories call the tensors of the language model, by our names.

    They keep the depth transformer once for every codebook; the first that uses a set of weights stands for it.
    """
    renamed: dict[str, str] = {}
    for name in lm_tensors(config):
        plain = name.replace(".alpha", ".weight")
        if name.startswith("emb."):
            renamed[name] = f"audio_{plain.replace('emb', 'embs', 1)}"
        elif not name.startswith(("depformer", "linears")):
            renamed[name] = plain.replace("_projs.0.", "_proj.")
    return renamed | (_mlx_depth(config) if config.depth else {})


def _mlx_depth(config: LmConfig) -> dict[str, str]:
    assert config.depth
    renamed: dict[str, str] = {}
    layers = [name for name in _depth(config) if name.startswith("depformer.layers.")]
    for step, (weights, projection) in enumerate(zip(config.depth.schedule, config.depth.projections, strict=True)):
        at = f"depformer.slices.{step}"
        table = f"depformer_emb.{step - 1}" if step else "depformer_text_emb"
        found = {
            f"depformer_in.{projection}.weight": f"{at}.linear_in.weight",
            f"linears.{step}.weight": f"{at}.linear_out.weight",
            f"linears.{step}.bias": f"{at}.linear_out.bias",
            f"{table}.weight": f"{at}.emb.weight",
            f"{table}.low_rank.weight": f"{at}.emb.low_rank.weight",
        }
        for name in layers:
            which = re.search(r"(?:_projs|gating)\.(\d+)\.", name)
            if which is None or int(which[1]) == weights:
                theirs = re.sub(r"(_proj)s\.\d+|(gating)\.\d+", r"\1\2", name)
                found[name] = theirs.replace("depformer", f"{at}.transformer", 1).replace(".alpha", ".weight")
        renamed = found | renamed
    return renamed


def spellings(name: str) -> Iterator[tuple[str, int | None]]:
    """Other torch names of a tensor; with a number it is one of the sets of weights that are stacked under it."""
    if found := re.fullmatch(r"(.*\.self_attn\.(?:in|out)_proj)s\.(\d+)\.weight", name):
        yield f"{found[1]}.weight", int(found[2])
        yield f"{found[1]}_weight", int(found[2])
    if ".gating.0." in name:  # what all steps share is not numbered
        yield name.replace(".gating.0.", ".gating."), None
    stem, _, leaf = name.rpartition(".")
    for old in CODEBOOK.get(leaf, ()):
        yield f"{stem}.{old}", None
