"""Writes a tiny checkpoint of the oracle in the other layouts in which checkpoints are published."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ORACLE = Path(__file__).parent / "data" / "oracle"
STACKED = re.compile(r"(.*self_attn\.(?:in|out)_proj)(?:_weight|\.weight)")

Tensors: TypeAlias = dict[str, Tensor]


def load(name: str) -> Tensors:
    """The language model of an oracle checkpoint under its published names: attention stacked over the sets."""
    return load_file(ORACLE / name / "model.safetensors")


def write(name: str, folder: Path, tensors: Tensors, file: str = "model.safetensors", **settings: Any) -> Path:
    """An oracle checkpoint with another language model, in `folder`; `settings` go over those of its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in ("mimi.safetensors", "mimi_config.json", "tokenizer.model"):
        shutil.copy(ORACLE / name / other, folder)
    raw = json.loads((ORACLE / name / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"moshi_name": file} | settings))
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, folder / file)
    return folder


def sets(name: str) -> int:
    """How many sets of weights the attention of the depth transformer has in these checkpoints."""
    return 8 if name.startswith("depformer.") else 1


def unstacked(tensors: Tensors) -> Tensors:
    """As the newer torch exports have it: a tensor for each set of weights."""
    found: Tensors = {}
    for name, value in tensors.items():
        if stacked := STACKED.fullmatch(name):
            parts = value.chunk(sets(name))
            found |= {f"{stacked[1]}s.{i}.weight": part for i, part in enumerate(parts)}
        else:
            found[name] = value
    return found


def in_rows(tensors: Tensors) -> Tensors:
    """As bitsandbytes stores it: every linear layer in 8 bits, a scale for each row."""
    found: Tensors = {}
    for name, value in tensors.items():
        if value.dim() != 2 or name.startswith(("emb.", "text_emb.", "depformer_emb.", "depformer_text_emb.")):
            found[name] = value
            continue
        largest = value.abs().amax(1)
        found[name] = (value * (127 / largest)[:, None]).round().to(torch.int8)
        found[f"{name}_scb"] = largest
    return found


def as_mlx(tensors: Tensors, schedule: list[int], layers: int = 2) -> Tensors:
    """As the MLX repositories have it: the depth transformer once for each codebook. Takes unstacked tensors."""
    found = {"out_norm.weight": tensors["out_norm.alpha"].flatten()}
    for name, value in tensors.items():
        if name.startswith("emb."):
            found[f"audio_embs.{name[4:]}"] = value
        elif name.startswith("transformer."):
            plain = name.replace(".alpha", ".weight").replace("_projs.0.", "_proj.")
            found[plain] = value.flatten() if name.endswith(".alpha") else value
        elif name.startswith(("text_", "extra_heads", "condition_provider")):
            found[name] = value
    for step, weights in enumerate(schedule):
        at = f"depformer.slices.{step}"
        found[f"{at}.linear_in.weight"] = tensors[f"depformer_in.{weights}.weight"]
        found[f"{at}.linear_out.weight"] = tensors[f"linears.{step}.weight"]
        table = f"depformer_emb.{step - 1}" if step else "depformer_text_emb"
        for leaf in ("weight", "low_rank.weight"):
            if f"{table}.{leaf}" in tensors:
                found[f"{at}.emb.{leaf}"] = tensors[f"{table}.{leaf}"]
        for layer in range(layers):
            here, there = f"{at}.transformer.layers.{layer}", f"depformer.layers.{layer}"
            for norm in ("norm1", "norm2"):
                found[f"{here}.{norm}.weight"] = tensors[f"{there}.{norm}.alpha"].flatten()
            for way in ("in", "out"):
                linear = tensors[f"{there}.gating.{weights}.linear_{way}.weight"]
                found[f"{here}.gating.linear_{way}.weight"] = linear
                found[f"{here}.self_attn.{way}_proj.weight"] = tensors[
                    f"{there}.self_attn.{way}_projs.{weights}.weight"
                ]
    return found
