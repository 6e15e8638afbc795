"""The evidence: one page per run, and runs side by side. A leaf: it reads result files and no stage depends on it."""
