"""The models as torch programs."""

import os

# Torch then asks for large pages, where Linux gives them on request: a tenth more bandwidth for weights.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
