"""The rule labeller under the name that judges' users know; it lives in chexalign.labels."""

from chexalign.labels import FINDINGS, LABELS, label_report

__all__ = ["FINDINGS", "LABELS", "label_report"]
