"""Checkpoints of every layout give the same tensors under the same names, or one line that says what is wrong."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from tests import checkpoints  # noqa: E402
from tests.checkpoints import ORACLE, as_mlx, in_rows, load, unstacked, write  # noqa: E402
from voice_bridge.engines.moshi import checkpoint, config, names  # noqa: E402
from voice_bridge.engines.moshi.checkpoint import Checkpoint, Groups, Plain, Rows8, Stored, Weights  # noqa: E402
from voice_bridge.engines.moshi.config import ModelError  # noqa: E402

NAMES = ("moshi", "stt", "conditioned", "quantizable")
SCHEDULE = [0, 1, 2, 3, 3, 3, 4, 4]


def values(stored: Stored) -> Tensor:
    """What a stored tensor stands for, computed as its form says."""
    match stored:
        case Plain(found):
            return found  # type: ignore[no-any-return]
        case Rows8(codes, scale):
            return codes * scale[:, None]  # type: ignore[no-any-return]
        case Groups(packed, scales, biases, bits, group):
            codes = packed.view(torch.uint8)
            if bits == 4:
                codes = torch.stack([codes & 15, codes >> 4], 2).flatten(1)
            grouped = codes.unflatten(1, (-1, group)) * scales[:, :, None] + biases[:, :, None]
            return grouped.flatten(1)  # type: ignore[no-any-return]


def same(found: Weights, expected: Weights, leaving_out: Iterable[str] = ()) -> None:
    assert list(found) == list(expected)
    for name in set(found) - set(leaving_out):
        assert torch.equal(values(found(name)), values(expected(name))), name


def lm(name: str) -> Weights:
    return Checkpoint.open(ORACLE / name).lm()


# Names and shapes


@pytest.mark.parametrize("name", NAMES)
def test_the_published_names_are_all_known_and_all_used(name: str) -> None:
    weights = lm(name)
    stored = load(name)
    assert sum(map(weights.size, weights)) == sum(value.nbytes for value in stored.values())
    for key, shape in names.lm_tensors(Checkpoint.open(ORACLE / name).config.lm).items():
        assert tuple(values(weights(key)).shape) == shape
    exact = [key for key in weights if key in stored and key != "text_emb.weight"]
    assert len(exact) > len(weights) / 2
    for key in exact:
        assert torch.equal(values(weights(key)).flatten(), stored[key].flatten())


@pytest.mark.parametrize("name", NAMES)
def test_mimi_is_whole_with_the_codebooks_that_the_model_needs(name: str) -> None:
    opened = Checkpoint.open(ORACLE / name)
    codebooks = opened.config.lm.codebooks
    stored = load_file(opened.codec)
    weights = opened.mimi()
    books = [key for key in weights if "_codebook" in key]
    assert len(books) == 2 * codebooks
    rest = {key for key in stored if "_codebook" not in key}
    assert sum(weights.size(key) for key in set(weights) - set(books)) == sum(stored[key].nbytes for key in rest)
    assert torch.equal(values(weights(books[-1])), stored[books[-1]])


# The sums are those of the reference's own models of these configurations.
@pytest.mark.parametrize(
    ("parameters", "changes"),
    [
        (425_344, {"depformer_weights_per_step_schedule": SCHEDULE}),
        (491_712, {"depformer_low_rank_embeddings": 8}),
        (447_616, {"depformer_dim_feedforward": [132, *[66] * 7]}),
        (507_008, {"depformer_norm": "rms_norm_f32"}),
        (507_264, {"depformer_norm": "layer_norm"}),
        (478_080, {"kv_repeat": 2}),
        (250_368, {"dep_q": 0}),
        (316_800, {"depformer_weights_per_step": False, "depformer_multi_linear": False}),
        (331_136, {"depformer_weights_per_step": False, "depformer_gating": "none"}),
        (507_712, {"gating": "none", "norm": "layer_norm", "layer_scale": 0.01}),
        (507_520, {"bias_proj": True}),
        (496_768, {"text_card_out": 100}),
        (507_712, {"extra_heads_num_heads": 3, "extra_heads_dim": 5}),
    ],
)
def test_other_configurations_have_the_tensors_of_the_reference(parameters: int, changes: dict[str, Any]) -> None:
    raw = json.loads((ORACLE / "moshi" / "config.json").read_text()) | changes
    if changes.get("gating") == "none":
        raw["depformer_gating"] = "silu"
    shapes = names.lm_tensors(config.model(raw, {}).lm).values()
    assert sum(torch.Size(shape).numel() for shape in shapes) == parameters


def test_a_config_that_says_nothing_is_the_first_moshi() -> None:
    shapes = names.lm_tensors(config.model({}, {}).lm).values()
    assert sum(torch.Size(shape).numel() for shape in shapes) == 7_687_729_152


# Layouts


def test_stacked_sets_of_weights_come_one_by_one() -> None:
    stacked = load("moshi")["depformer.layers.1.self_attn.in_proj_weight"]
    weights = lm("moshi")
    for i in range(8):
        one = values(weights(f"depformer.layers.1.self_attn.in_projs.{i}.weight"))
        assert torch.equal(one, stacked[96 * i : 96 * (i + 1)])


@pytest.mark.parametrize("name", NAMES)
def test_newer_names_are_the_same_model(name: str, tmp_path: Path) -> None:
    same(Checkpoint.open(write(name, tmp_path, unstacked(load(name)))).lm(), lm(name))


def test_half_precision_stays_as_it_is_stored(tmp_path: Path) -> None:
    tensors = {key: value.bfloat16() for key, value in load("moshi").items()}
    weights = Checkpoint.open(write("moshi", tmp_path, tensors)).lm()
    assert weights.form == "BF16"
    assert {values(weights(key)).dtype for key in weights} == {torch.bfloat16}


@pytest.mark.parametrize("layout", [lambda tensors: tensors, unstacked], ids=["stacked", "newer"])
def test_rows_of_8_bits_are_within_half_a_step(layout: Callable[[Any], Any], tmp_path: Path) -> None:
    weights = Checkpoint.open(write("moshi", tmp_path, in_rows(layout(load("moshi"))), quantize=True)).lm()
    assert weights.form == "int8 by rows"
    exact = lm("moshi")
    for name in weights:
        stored, value = weights(name), values(exact(name))
        linear = value.dim() == 2 and "emb." not in name
        assert isinstance(stored, Rows8) is linear, name
        if isinstance(stored, Rows8):
            assert stored.codes.dtype == torch.int8
            step = value.abs().amax(1, keepdim=True) / 127
            assert ((values(stored) - value).abs() <= 0.5001 * step).all(), name
        else:
            assert torch.equal(values(stored), value)


@pytest.mark.parametrize(("file", "bits", "group"), [("model.q4.safetensors", 4, 32), ("model.q8.safetensors", 8, 64)])
def test_mlx_groups_are_within_a_step(file: str, bits: int, group: int, tmp_path: Path) -> None:
    tensors = load_file(ORACLE / "quantizable" / file)
    weights = Checkpoint.open(write("quantizable", tmp_path, tensors, file)).lm()
    assert weights.form == f"{bits} bits in groups of {group}"
    exact = lm("quantizable")
    for name in weights:
        stored, value = weights(name), values(exact(name))
        if not isinstance(stored, Groups):
            assert value.dim() == 1
            assert torch.equal(values(stored), value)
            continue
        assert (stored.bits, stored.group) == (bits, group)
        grouped = value.unflatten(1, (-1, group))
        step = (grouped.amax(2) - grouped.amin(2)) / (2**bits - 1)
        off = (values(stored) - value).unflatten(1, (-1, group)).abs().amax(2)
        assert (off <= step).all(), name


@pytest.mark.parametrize("name", ["moshi", "conditioned"])
def test_mlx_names_are_the_same_model(name: str, tmp_path: Path) -> None:
    tensors = as_mlx(unstacked(load(name)), list(range(8)))
    same(Checkpoint.open(write(name, tmp_path, tensors)).lm(), lm(name))


def test_mlx_names_of_shared_weights_and_narrow_embeddings_are_the_same_model(tmp_path: Path) -> None:
    settings = {"depformer_weights_per_step_schedule": SCHEDULE, "depformer_low_rank_embeddings": 8}
    raw = json.loads((ORACLE / "moshi" / "config.json").read_text()) | settings
    shapes = names.lm_tensors(config.model(raw, {}).lm)
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    ours = write("moshi", tmp_path / "torch", tensors, **settings)
    theirs = write("moshi", tmp_path / "mlx", as_mlx(tensors, SCHEDULE), **settings)
    same(Checkpoint.open(theirs).lm(), Checkpoint.open(ours).lm())


def test_a_model_in_shards_is_the_same_model(tmp_path: Path) -> None:
    tensors = list(load("moshi").items())
    shards = {"model-1.safetensors": dict(tensors[::2]), "model-2.safetensors": dict(tensors[1::2])}
    for file, part in shards.items():
        write("moshi", tmp_path, part, file, moshi_name="model.safetensors")
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    same(Checkpoint.open(tmp_path).lm(), lm("moshi"))
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-2\.safetensors is missing"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("layout", [lambda tensors: tensors, unstacked], ids=["stacked", "newer"])
def test_adapters_are_merged_and_may_replace_tensors(layout: Callable[[Any], Any], tmp_path: Path) -> None:
    base, rank = layout(load("moshi")), 3
    adapter, expected = {"text_emb.weight": torch.randn(257, 64)}, unstacked(load("moshi"))
    expected["text_emb.weight"] = adapter["text_emb.weight"]
    linears = [name for name in base if "self_attn" in name or "linear" in name]
    for name in linears:
        many = checkpoints.sets(name) if re.search(r"_proj[._]", name) else 1
        outputs, inputs = base[name].shape
        down, up = torch.randn(many * rank, inputs), torch.randn(outputs, rank)
        stem = name.replace("_proj_weight", "_proj.weight").removesuffix(".weight")
        adapter |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        pieces = zip(base[name].chunk(many), down.chunk(many), up.chunk(many), strict=True)
        merged = torch.cat([w + 0.5 * b @ a for w, a, b in pieces])
        key = name if name in expected else f"{stem}.weight"
        expected |= unstacked({key if many == 1 else name: merged})
    folder = write("moshi", tmp_path, base, lora=True, lora_name="lora.safetensors", lora_scaling=0.5)
    save_file(adapter, folder / "lora.safetensors")
    weights = Checkpoint.open(folder).lm()
    for name in weights:
        torch.testing.assert_close(values(weights(name)), expected[name].reshape(values(weights(name)).shape))


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load("moshi"), lora_name="lora.safetensors")
    fitting = {"linears.0.lora_A.weight": torch.ones(3, 32), "linears.0.lora_B.weight": torch.ones(64, 3)}
    save_file(fitting | {"linears.0.lora_B.weight": torch.ones(64, 4)}, folder / "lora.safetensors")
    with pytest.raises(ModelError, match=r"linears\.0\.lora_A\.weight does not fit"):
        Checkpoint.open(folder).lm()
    at = "depformer.layers.0.self_attn.out_proj"
    one = {f"{at}.lora_A.weight": torch.ones(3, 32), f"{at}.lora_B.weight": torch.ones(32, 3)}
    for unfit in (one, {name: value[0, 0] for name, value in one.items()}):
        save_file(unfit, folder / "lora.safetensors")
        with pytest.raises(ModelError, match=r"out_proj\.lora_A\.weight does not fit"):
            Checkpoint.open(folder).lm()
    save_file({"text_linear.lora_C.weight": torch.ones(1)}, folder / "lora.safetensors")
    with pytest.raises(ModelError, match=r"no place in this model: text_linear\.lora_C"):
        Checkpoint.open(folder).lm()
    save_file(fitting, folder / "lora.safetensors")
    save_file(in_rows(load("moshi")), folder / "model.safetensors")
    with pytest.raises(ModelError, match="cannot be merged into quantised weights"):
        Checkpoint.open(folder).lm()


def test_hibiki_reads_its_early_end_as_padding_and_leaves_the_file_alone() -> None:
    file = ORACLE / "conditioned" / "model.safetensors"
    before = file.read_bytes()
    stored = load("conditioned")["text_emb.weight"]
    table = values(lm("conditioned")("text_emb.weight"))
    assert torch.equal(table[2], stored[3])
    assert not torch.equal(table[2], stored[2])
    assert torch.equal(table[3:], stored[3:])
    assert file.read_bytes() == before


def test_hibiki_in_groups_has_its_row_changed_too(tmp_path: Path) -> None:
    tensors = load("conditioned")
    table = torch.randint(0, 1 << 30, (257, 16)).to(torch.uint32)
    tensors |= {
        "text_emb.weight": table,
        "text_emb.scales": torch.randn(257, 2),
        "text_emb.biases": torch.randn(257, 2),
    }
    found = values(Checkpoint.open(write("conditioned", tmp_path, tensors)).lm()("text_emb.weight"))
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[1], found[3])


def test_another_framework_reads_the_same_numbers(tmp_path: Path) -> None:
    """numpy stands for MLX, which does not run everywhere."""
    for layout in (load("moshi"), unstacked(load("moshi")), in_rows(load("moshi"))):
        opened = Checkpoint.open(write("moshi", tmp_path, layout))
        ours, theirs = opened.lm(), opened.lm("np")  # type: ignore[arg-type]
        for name in ours:
            stored = theirs(name)
            found = stored.codes * stored.scale[:, None] if isinstance(stored, Rows8) else stored.values
            assert torch.equal(torch.from_numpy(found.copy()), values(ours(name))), name


def test_older_names_of_codebooks_are_known(tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load("moshi"))
    older = {"_initialized": "inited", "cluster_usage": "cluster_size", "embedding_sum": "embed_avg"}
    tensors = load_file(folder / "mimi.safetensors")
    for new, old in older.items():
        tensors = {name.replace(f"_codebook.{new}", f"_codebook.{old}"): value for name, value in tensors.items()}
    save_file(tensors, folder / "mimi.safetensors")
    same(Checkpoint.open(folder).mimi(), Checkpoint.open(ORACLE / "moshi").mimi())


def test_of_personaplex_only_what_the_agent_says_is_loaded(tmp_path: Path) -> None:
    tensors = load("moshi")
    for name, value in load("moshi").items():
        if checkpoints.STACKED.fullmatch(name) and name.startswith("depformer."):
            tensors[name] = torch.cat([value, -value])
        elif found := re.fullmatch(r"(depformer_in|linears|depformer.*gating|depformer_emb)\.(\d)(\..*)", name):
            tensors[f"{found[1]}.{int(found[2]) + 8}{found[3]}"] = -value
    tensors["depformer_emb.7.weight"] = torch.randn(65, 32)
    folder = write("moshi", tmp_path, tensors, model_type="personaplex", dep_q=16)
    opened = Checkpoint.open(folder)
    assert (opened.config.lm.own_streams, opened.config.lm.heard_streams) == (8, 8)
    same(opened.lm(), lm("moshi"))


def test_personaplex_says_only_its_name_in_its_config() -> None:
    found = config.model({"model_type": "personaplex", "version": "7b-v1"}, {})
    assert found.lm == config.model({}, {}).lm


# Which files


def test_the_weights_are_those_that_config_names_else_the_best_there_is() -> None:
    there = ["model.q4.safetensors", "model.q8.safetensors"]
    assert names.files({}, there).weights == "model.q8.safetensors"
    assert names.files({}, [*there, "model.safetensors"]).weights == "model.safetensors"
    assert names.files({"moshi_name": "model.q4.safetensors"}, there).weights == "model.q4.safetensors"
    assert names.files({}, []).weights == "model.safetensors"


def test_a_folder_without_config_holds_the_first_moshi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "MOSHI_7B", json.loads((ORACLE / "quantizable" / "config.json").read_text()))
    monkeypatch.setattr(config, "MIMI", json.loads((ORACLE / "quantizable" / "mimi_config.json").read_text()))
    shutil.copy(ORACLE / "quantizable" / "model.q4.safetensors", tmp_path)
    shutil.copy(ORACLE / "quantizable" / "mimi.safetensors", tmp_path / names.MIMI)
    shutil.copy(ORACLE / "quantizable" / "tokenizer.model", tmp_path / names.TOKENIZER)
    opened = Checkpoint.open(tmp_path)
    assert opened.tokenizer == tmp_path / names.TOKENIZER
    assert opened.lm().form == "4 bits in groups of 32"
    assert len(opened.mimi())


def test_files_of_other_repositories_are_taken_from_the_folder_if_they_are_there(tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load("moshi"), mimi_name="hf://kyutai/mimi/mimi.safetensors")
    assert Checkpoint.open(folder).codec == folder / "mimi.safetensors"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", 7])
def test_a_config_cannot_name_files_outside(name: object, tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load("moshi"), tokenizer_name=name)
    with pytest.raises(ModelError, match="not in the model's folder"):
        Checkpoint.open(folder)


# What is wrong


def test_missing_tensors_are_counted_and_named(tmp_path: Path) -> None:
    tensors = load("moshi")
    for name in ("emb.3.weight", "transformer.layers.1.norm2.alpha", "text_linear.weight", "linears.5.weight"):
        del tensors[name]
    folder = write("moshi", tmp_path, tensors)
    with pytest.raises(ModelError) as error:
        Checkpoint.open(folder).lm()
    assert str(error.value) == (
        f"{folder}/model.safetensors: 4 of 129 tensors are missing: emb.3.weight, transformer.layers.1.norm2.alpha,"
        " text_linear.weight, ..."
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"emb.3.weight": torch.ones(65, 60)}, r"emb.3.weight has the shape [65, 60], not [65, 64]"),
        ({"emb.3.weight": torch.ones(65)}, r"emb.3.weight has the shape [65], not [65, 64]"),
        ({"emb.3.weight": torch.ones(65, 64).double()}, "emb.3.weight is stored as F64; known are F32, BF16, F16"),
        ({"emb.3.weight": torch.ones(65, 64).to(torch.int8)}, "is quantised, but emb.3.weight_scb is missing"),
        ({"emb.3.weight": torch.ones(65, 8).to(torch.uint32)}, "is quantised, but emb.3.scales, emb.3.biases"),
        (
            {"linears.0.weight": torch.ones(64, 32).to(torch.int8), "linears.0.weight_scb": torch.ones(3)},
            "linears.0.weight does not fit its scales",
        ),
        (
            {"depformer.layers.1.self_attn.out_proj.weight": torch.ones(32, 32)},
            "depformer.layers.1.self_attn.out_proj.weight holds the weights of 1 steps, and more are needed",
        ),
        (
            {"out_norm.alpha": torch.ones(64).to(torch.int8), "out_norm.alpha_scb": torch.ones(64)},
            "out_norm.alpha is quantised, which only matrices may be",
        ),
        ({"transformer.layers.3.norm1.alpha": torch.ones(64)}, "1 tensors have no place in this model: transformer."),
        ({"transformer.layers.0.cross_attention.in_proj_weight": torch.ones(1)}, "looks like a text-to-speech model"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load("moshi") | change)
    with pytest.raises(ModelError, match=re.escape(complaint)) as error:
        Checkpoint.open(folder).lm()
    assert "\n" not in str(error.value)


def test_groups_that_nobody_writes_are_refused(tmp_path: Path) -> None:
    tensors = load_file(ORACLE / "quantizable" / "model.q8.safetensors")
    tensors["text_emb.scales"] = tensors["text_emb.biases"] = torch.ones(257, 3)
    folder = write("quantizable", tmp_path, tensors)
    with pytest.raises(ModelError, match=r"text_emb\.weight has 8 bits in groups of 85"):
        Checkpoint.open(folder).lm()


def test_a_file_in_anothers_place_is_recognised(tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load_file(ORACLE / "moshi" / "mimi.safetensors"))
    with pytest.raises(ModelError, match=r"129 of 129 tensors are missing.*; it looks like Mimi, the codec$"):
        Checkpoint.open(folder).lm()
    save_file(load("moshi"), folder / "mimi.safetensors")
    with pytest.raises(ModelError, match=r"it looks like the language model$"):
        Checkpoint.open(folder).mimi()
    save_file({"text_emb.weight": torch.ones(257, 64)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"emb\.0\.weight, emb\.1\.weight, emb\.2\.weight, \.\.\.$"):
        Checkpoint.open(folder).lm()
    save_file({"model.layers.0.mlp.weight": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"it looks like a model of another family$"):
        Checkpoint.open(folder).lm()


def test_a_text_to_speech_model_is_refused_before_its_weights_are_looked_at(tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, {}, model_type="tts")
    with pytest.raises(ModelError, match="text-to-speech"):
        Checkpoint.open(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write("moshi", tmp_path, load("moshi"))
    (folder / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.model is missing: `voice-bridge download` fetches"):
        Checkpoint.open(folder)


def test_a_damaged_file_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    """Random damage to the list of tensors: the model opens, or says in one line why not."""
    whole = (ORACLE / "stt" / "model.safetensors").read_bytes()
    file = tmp_path / "model.safetensors"
    wanted = names.lm_tensors(Checkpoint.open(ORACLE / "stt").config.lm)
    chance = random.Random(0)
    complaints = []
    cases = [b"", b"version https://git-lfs.github.com/spec/v1\n", whole[:5], whole[:1000], whole[:-1]]
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(6000)] = chance.randrange(256)
        cases.append(bytes(damaged))
    for case in cases:
        file.write_bytes(case)
        try:
            Weights(file, wanted, strict=True)
        except ModelError as error:
            complaints.append(str(error))
    assert len(complaints) > 50
    assert not [complaint for complaint in complaints if "\n" in complaint]


# Memory


def test_reading_holds_one_tensor_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    megabyte = 1 << 20
    monkeypatch.setattr(checkpoint, "MAPPED", megabyte)
    tensors = {f"{i}": torch.ones(4 * megabyte // 4) for i in range(16)}
    save_file(tensors, tmp_path / "model.safetensors")
    weights = Weights(tmp_path / "model.safetensors", {name: tuple(value.shape) for name, value in tensors.items()})
    del tensors
    before = mapped()
    for name in weights:
        assert values(weights(name)).sum() == megabyte
        assert mapped() - before < 8 * megabyte


def mapped() -> int:
    """Bytes of files that count as this process's memory."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssFile:\s+(\d+) kB", status)
    assert found
    return 1024 * int(found[1])
