"""The models as torch programs."""
