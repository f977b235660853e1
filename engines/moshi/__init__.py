"""Moshi, Mimi and their kin on our own code."""
