"""The pieces of benchmarks/engine.py: the settings measured, TRL's side, our side."""
