"""Models to be measured without weights of anybody's."""

from __future__ import annotations

from collections.abc import Mapping

from .config import MOSHI_7B, Json

# The 7B; a model of a twentieth that fits the reference's patience; and the 7B's layers with next to nothing in them,
# so that what remains is the framework.
SHAPES: Mapping[str, Json] = {
    "7b": MOSHI_7B,
    "small": MOSHI_7B
    | {"dim": 1024, "num_heads": 16, "num_layers": 8, "depformer_dim": 512, "depformer_num_heads": 8}
    | {"depformer_dim_feedforward": int(4.125 * 512)},
    "tiny": MOSHI_7B
    | {"dim": 64, "num_heads": 2, "hidden_scale": 4.5, "context": 64, "text_card": 64}
    | {"depformer_dim": 64, "depformer_num_heads": 2, "depformer_dim_feedforward": 288},
}
