"""chexalign: align chest X-ray report models with automatic judges, and prove what changed."""

__version__ = "0.1.0"
