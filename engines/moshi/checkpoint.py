"""Checkpoints in every published layout, read one tensor at a time. Knows no tensor framework by name.

checkpoint = Checkpoint.open("kyutai/moshika-pytorch-bf16")  # or a folder
weights = checkpoint.lm("pt", "cuda:0")  # all names and shapes are checked now, no tensor is read yet
for name in weights:  # the names of names.lm_tensors
    match weights(name):
        case Plain(values): ...
        case Rows8(codes, scale): ...
        case Groups(packed, scales, biases, bits, group): ...
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from safetensors import SafetensorError, safe_open

from . import config as configs
from . import download, names
from .config import Json, ModelConfig, ModelError
from .names import Shape

Framework: TypeAlias = Literal["pt", "mlx"]

MAPPED = 32 << 20  # bytes read through one mapping of a file: pages once read count as ours until it is let go
NAMED = 3  # tensors that an error names; their number says the rest
INT8_STEPS = 127  # bitsandbytes stores the largest value of a row, which is code 127
LORA_SCALING = 2.0  # of an adapter whose config.json does not say
TEXT = "text_emb.weight"
EARLY_END = (2, 3)  # Hibiki ends too early: its end of speech is read as padding

BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U32": 4}  # of a number, by its name in a file
PACKED_BITS = (4, 8)
GROUPS = (32, 64, 128)
# Parts of the depth transformer that are there for more codebooks than are spoken here, as PersonaPlex has them.
SPARE = ("depformer", "linears.", "extra_heads.")
# Names by which a file is known that is not what it was taken for.
FAMILIES = {
    ".cross_attention.": "a text-to-speech model",
    "lora_A": "an adapter, which config.json has under lora_name",
    "quantizer.": "Mimi, the codec",
    "text_emb.": "the language model",
    "model.layers.": "a model of another family",
}


@dataclass(frozen=True)
class Plain:
    """The values, as stored: float32, bfloat16 or float16."""

    values: Any


@dataclass(frozen=True)
class Rows8:
    """Eight bits, and a scale for each row: w[i, j] = codes[i, j] * scale[i]."""

    codes: Any  # int8 [m, k]
    scale: Any  # float32 [m]


@dataclass(frozen=True)
class Groups:
    """MLX's affine codes: w[i, j] = code[i, j] * scales[i, j // group] + biases[i, j // group].

    A word holds 32 / bits codes, the first in its lowest bits. So `packed` viewed as bytes is the codes themselves
    when bits = 8; when bits = 4 each byte is two codes, the low nibble first.
    """

    packed: Any  # uint32 [m, k * bits / 32]
    scales: Any  # [m, k / group]
    biases: Any  # [m, k / group]
    bits: int
    group: int


Stored: TypeAlias = Plain | Rows8 | Groups


class Entry(NamedTuple):
    """A tensor in a file, as the file's header has it."""

    file: Path
    dtype: str
    shape: Shape

    @property
    def size(self) -> int:
        return BYTES[self.dtype] * math.prod(self.shape)


class Place(NamedTuple):
    """Where a tensor of ours is: what it consists of and, where sets of weights are stacked, which of them it is."""

    parts: tuple[str, ...]
    number: int = 0
    sets: int = 1
    bits: int = 0
    group: int = 0


class _MlxFile:
    """A file as MLX reads it, each tensor when it is computed with: safetensors has no bfloat16 for MLX."""

    def __init__(self, file: Path) -> None:
        self._tensors = import_module("mlx.core").load(str(file))

    def get_tensor(self, name: str) -> Any:
        return self._tensors[name]

    get_slice = get_tensor


class Weights:
    """A model's tensors by our names, wherever and however its file has them. Raises `ModelError` if one is not there.

    `renamed` are their names in MLX repositories. `adapter` is a file of LoRA weights: they are merged into what is
    read, W + scaling * B A. `early_end` is Hibiki's change of one row of the text embedding. With `strict`, tensors
    that the model has no place for are an error.
    """

    def __init__(
        self,
        path: Path,
        wanted: Mapping[str, Shape],
        framework: Framework = "pt",
        device: str = "cpu",
        *,
        renamed: Mapping[str, str] | None = None,
        adapter: Path | None = None,
        scaling: float = LORA_SCALING,
        early_end: bool = False,
        strict: bool = False,
    ) -> None:
        self._wanted, self._framework, self._device = wanted, framework, device
        self._renamed = renamed or {}
        self._scaling, self._early_end = scaling, early_end
        self._mapping: tuple[Path, Any] | None = None
        self._touched = 0
        # An adapter may replace whole tensors too, such as embeddings.
        self._entries = entries(path) | (entries(adapter) if adapter else {})
        self._places = self._find_all(path)
        self._adapted = {name: place for name in wanted if (place := self._find_adapter(name))} if adapter else {}
        if strict:
            self._refuse_rest(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._wanted)

    def __len__(self) -> int:
        return len(self._wanted)

    def size(self, name: str) -> int:
        """Bytes that a tensor takes in its file."""
        place = self._places[name]
        return sum(self._entries[part].size for part in place.parts) // place.sets

    @property
    def form(self) -> str:
        """How most of it is stored: "BF16", "int8 by rows", "4 bits in groups of 32"."""
        counted: Counter[str] = Counter()
        for name, place in self._places.items():
            dtype = self._entries[place.parts[0]].dtype
            forms = {"I8": "int8 by rows", "U32": f"{place.bits} bits in groups of {place.group}"}
            counted[forms.get(dtype, dtype)] += self.size(name)
        return counted.most_common(1)[0][0]

    def __call__(self, name: str) -> Stored:
        """Read a tensor; nobody keeps it but the caller."""
        place = self._places[name]
        tensors = self._read_all(place)
        if name == TEXT and self._early_end:
            to, source = EARLY_END
            for tensor in tensors:
                tensor[to] = tensor[source]
        if place.bits:
            packed, scales, biases = tensors
            return Groups(packed, scales, biases, place.bits, place.group)
        if len(tensors) == 2:
            return Rows8(tensors[0], tensors[1] / INT8_STEPS)
        values = tensors[0].reshape(self._wanted[name])
        if name in self._adapted:
            down, up = self._read_all(self._adapted[name])
            values = values + self._scaling * (up @ down)
        return Plain(values)

    def _read_all(self, place: Place) -> list[Any]:
        return [self._read(part, place.number, place.sets) for part in place.parts]

    def _read(self, part: str, number: int, sets: int) -> Any:
        entry = self._entries[part]
        size = entry.size // sets
        if self._mapping is None or self._mapping[0] != entry.file or self._touched + size > MAPPED:
            self._mapping = None  # the old one goes before the new one comes
            self._mapping = (entry.file, self._map(entry.file))
            self._touched = 0
        self._touched += size
        mapped = self._mapping[1]
        if sets == 1:
            return mapped.get_tensor(part)
        rows = entry.shape[0] // sets
        return mapped.get_slice(part)[number * rows : (number + 1) * rows]

    def _map(self, file: Path) -> Any:
        if self._framework == "mlx":
            return _MlxFile(file)
        return safe_open(file, framework=self._framework, device=self._device)

    def _find_all(self, path: Path) -> dict[str, Place]:
        found = {name: self._find(name, shape) for name, shape in self._wanted.items()}
        missing = [name for name, place in found.items() if place is None]
        wrong = [place for place in found.values() if isinstance(place, str)]
        if missing:
            raise ModelError(
                f"{path}: {len(missing)} of {len(found)} tensors are missing: {some(missing)}"
                f"{resemblance(self._entries, found) if 2 * len(missing) > len(found) else ''}"
            )
        if wrong:
            raise ModelError(f"{path}: {wrong[0]}; does it belong to this config.json?")
        return {name: place for name, place in found.items() if isinstance(place, Place)}

    def _spellings(self, name: str) -> Iterator[tuple[str, int | None]]:
        yield name, None
        if renamed := self._renamed.get(name):
            yield renamed, None
        yield from names.spellings(name)

    def _find(self, name: str, shape: Shape) -> Place | str | None:
        """Where a tensor is, or what is wrong with it; None when it is nowhere."""
        for spelling, number in self._spellings(name):
            if entry := self._entries.get(spelling):
                return self._place(spelling, number, entry, shape)
        return None

    def _place(self, name: str, number: int | None, entry: Entry, shape: Shape) -> Place | str:
        stem = name.removesuffix(".weight")
        kinds = {"I8": (name, f"{name}_scb"), "U32": (name, f"{stem}.scales", f"{stem}.biases")}
        parts = kinds.get(entry.dtype, (name,))
        if entry.dtype not in BYTES:
            return f"{name} is stored as {entry.dtype}; known are {', '.join(BYTES)}"
        if lost := [part for part in parts if part not in self._entries]:
            return f"{name} is quantised, but {some(lost)} is missing"
        wrong = f"{name} has the shape {list(entry.shape)}, not {list(shape)}"
        stored, sets, bits, group = entry.shape, 1, 0, 0
        if stored == (1, 1, *shape):  # torch keeps the vectors of its norms like this
            stored = shape
        if len(stored) != len(shape):
            return wrong
        if len(parts) > 1 and len(shape) != 2:
            return f"{name} is quantised, which only matrices may be"
        if len(parts) > 1 and any(self._entries[part].shape[:1] != stored[:1] for part in parts):
            return f"{name} does not fit its scales"
        if entry.dtype == "U32":
            bits = 32 * stored[1] // shape[1]
            group = shape[1] // max(1, self._entries[parts[1]].shape[-1])
            stored = (stored[0], shape[1])
            if bits not in PACKED_BITS or group not in GROUPS:
                return f"{name} has {bits} bits in groups of {group}; known are 4 and 8 bits in groups of 32, 64 or 128"
        if number is not None and stored[0] % shape[0] == 0:
            sets = stored[0] // shape[0]
            stored = (shape[0], *stored[1:])
        if stored != shape:
            return wrong
        if (number or 0) >= sets:
            return f"{name} holds the weights of {sets} steps, and more are needed"
        return Place(parts, number or 0, sets, bits, group)

    def _find_adapter(self, name: str) -> Place | None:
        for spelling, number in self._spellings(name):
            stem = spelling.removesuffix(".weight")
            parts = (f"{stem}.lora_A.weight", f"{stem}.lora_B.weight")
            if not all(part in self._entries for part in parts):
                continue
            down, up = (self._entries[part] for part in parts)
            if len(self._places[name].parts) > 1:
                raise ModelError(f"{down.file}: adapters cannot be merged into quantised weights")
            rows, *columns = self._wanted[name]
            sets = up.shape[0] // rows if up.shape else 0
            rank = up.shape[-1] if up.shape else 0
            fits = up.shape == (sets * rows, rank) and down.shape == (sets * rank, *columns) and len(columns) == 1
            if not fits or (number or 0) >= sets:
                raise ModelError(f"{down.file}: {parts[0]} does not fit {name}")
            return Place(parts, number or 0, sets)
        return None

    def _refuse_rest(self, path: Path) -> None:
        places = [*self._places.values(), *self._adapted.values()]
        used = {part for place in places for part in place.parts}
        rest = [name for name in self._entries if name not in used and not name.startswith(SPARE)]
        if rest:
            raise ModelError(
                f"{path}: {len(rest)} tensors have no place in this model: {some(rest)}"
                f"{resemblance(rest, self._wanted)}; does it belong to this config.json?"
            )


def some(these: Sequence[str]) -> str:
    return ", ".join(these[:NAMED]) + (", ..." if len(these) > NAMED else "")


def resemblance(found: Collection[str], wanted: Collection[str]) -> str:
    """What a file is instead, judged by the names in it."""

    def has(mark: str, names: Collection[str]) -> bool:
        return any(mark in name for name in names)

    looks = (family for mark, family in FAMILIES.items() if has(mark, found) and not has(mark, wanted))
    return "".join(f"; it looks like {family}" for family in islice(looks, 1))


def entries(path: Path) -> dict[str, Entry]:
    """All tensors of a file, or of the shards that an index names. Raises `ModelError` if a file is damaged."""
    if not path.name.endswith(names.INDEX):
        return _header(path)
    shards = names.shards(path)
    return {name: entry for shard in shards for name, entry in _header(path.parent / shard).items()}


def _header(path: Path) -> dict[str, Entry]:
    if not path.exists():
        raise ModelError(f"{path} is missing: `voice-bridge download` fetches what a checkpoint lacks")
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: Entry(path, one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is damaged, cut short or no safetensors file ({error}): download it again") from error


@dataclass(frozen=True)
class Checkpoint:
    """A model's files and what its configuration says; the tensors are read through `lm` and `mimi`."""

    folder: Path
    config: ModelConfig
    raw: Json
    weights: Path
    codec: Path
    tokenizer: Path
    adapter: Path | None = None
    voices: Path | None = None

    @classmethod
    def open(
        cls, model: str | Path, revision: str | None = None, report: download.Report = download.quiet
    ) -> Checkpoint:
        """A folder, or a repository (owner/name or owner/name@revision), which is downloaded if it is not there yet."""
        folder = download.find(model, revision, report)
        config, raw = configs.read(folder)
        found = download.contents(folder)
        if missing := [str(path) for path in found.values() if not path.exists()]:
            if len(missing) == len(found) and not raw:
                raise ModelError(f"{folder} holds no model: there is neither a config.json nor any weights in it")
            are = "is" if len(missing) == 1 else "are"
            raise ModelError(f"{some(missing)} {are} missing: `voice-bridge download` fetches what a checkpoint lacks")
        files = names.files(raw, found)
        return cls(
            folder,
            config,
            raw,
            weights=found[files.weights],
            codec=found[files.mimi],
            tokenizer=found[files.tokenizer],
            adapter=found.get(files.lora),
            voices=found.get(files.voices),
        )

    def lm(self, framework: Framework = "pt", device: str = "cpu") -> Weights:
        return Weights(
            self.weights,
            names.lm_tensors(self.config.lm),
            framework,
            device,
            renamed=names.mlx_names(self.config.lm),
            adapter=self.adapter,
            scaling=float(self.raw.get("lora_scaling", LORA_SCALING)),
            early_end=self.config.kind == "hibiki",
            strict=True,
        )

    def mimi(self, framework: Framework = "pt", device: str = "cpu") -> Weights:
        """With as many codebooks as this model uses."""
        wanted = names.mimi_tensors(self.config.mimi, self.config.lm.codebooks)
        return Weights(self.codec, wanted, framework, device)
