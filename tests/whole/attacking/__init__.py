"""Attacks on a real server: what is tried, who watches meanwhile, and what came of it (``scripts/attack``)."""
