"""Draw the phantom's findings on one labelled sheet, with their boxes: docs/img/phantom_sheet.png.

python benchmarks/phantom_sheet.py [--size 256] [--boxes] [--out docs/img/phantom_sheet.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from chexalign.data.phantom import streams
from chexalign.data.phantom.draw import draw
from chexalign.data.phantom.law import Finding

F = Finding
SHEET: tuple[tuple[str, tuple[Finding, ...]], ...] = (
    ("Normal", ()),
    ("Mild cardiomegaly", (F("cardiomegaly", severity="mild"),)),
    ("Severe cardiomegaly", (F("cardiomegaly", severity="severe"),)),
    ("Small left effusion", (F("effusion", "left", size="small"),)),
    ("Moderate right effusion", (F("effusion", "right", size="moderate"),)),
    ("Large left effusion", (F("effusion", "left", size="large"),)),
    ("Moderate bilateral effusions", (F("effusion", "bilateral", size="moderate"),)),
    ("Left upper opacity", (F("opacity", "left", "upper"),)),
    ("Right lower opacity", (F("opacity", "right", "lower"),)),
    ("Bilateral mid opacities", (F("opacity", "bilateral", "middle"),)),
    ("Right upper consolidation", (F("consolidation", "right", "upper"),)),
    ("Left lower consolidation", (F("consolidation", "left", "lower"),)),
    ("Left basilar atelectasis", (F("atelectasis", "left", "lower"),)),
    ("Bilateral atelectasis", (F("atelectasis", "bilateral", "lower"),)),
    ("Mild edema", (F("edema", severity="mild"),)),
    ("Severe edema", (F("edema", severity="severe"),)),
    ("Small left upper nodule", (F("nodule", "left", "upper", "small"),)),
    ("Large right mid nodule", (F("nodule", "right", "middle", "large"),)),
    ("Small right pneumothorax", (F("pneumothorax", "right", size="small"),)),
    ("Moderate left pneumothorax", (F("pneumothorax", "left", size="moderate"),)),
    ("Large right pneumothorax", (F("pneumothorax", "right", size="large"),)),
    ("Right venous catheter", (F("device", "right", device="catheter"),)),
    ("Left venous catheter", (F("device", "left", device="catheter"),)),
    ("Left pacemaker", (F("device", "left", device="pacemaker"),)),
    ("Endotracheal tube", (F("device", device="tube"),)),
    (
        "Heart failure",
        (
            F("cardiomegaly", severity="moderate"),
            F("edema", severity="moderate"),
            F("effusion", "bilateral", size="small"),
        ),
    ),
    ("Pneumonia, effusion", (F("consolidation", "right", "upper"), F("effusion", "right", size="small"))),
    ("Normal, another patient", ()),
)
COLUMNS, BAND = 7, 20


def tile(number: int, caption: str, findings: tuple[Finding, ...], size: int, boxes: bool) -> Image.Image:
    image, places = draw(findings, streams(0, 1, 300 + number), streams(0, 0, 300 + number), size)
    side = max(size, 256)
    framed = Image.new("RGB", (side, side + BAND), "white")
    framed.paste(Image.fromarray(image).convert("RGB").resize((side, side), Image.Resampling.NEAREST), (0, BAND))
    pen = ImageDraw.Draw(framed)
    pen.text((4, 4), caption, fill="black")
    for box in places if boxes else ():
        x0, y0, x1, y1 = (np.asarray(box) * side).round()
        pen.rectangle((x0, y0 + BAND, x1, y1 + BAND), outline=(230, 60, 40))
    return framed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="image size in pixels, enlarged to 256 if smaller")
    parser.add_argument("--boxes", action="store_true", help="draw the true places")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/img/phantom_sheet.png")
    chosen = parser.parse_args()
    tiles = [tile(n, caption, findings, chosen.size, chosen.boxes) for n, (caption, findings) in enumerate(SHEET)]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (COLUMNS * (width + 4), -(-len(tiles) // COLUMNS) * (height + 4)), "white")
    for n, picture in enumerate(tiles):
        sheet.paste(picture, (n % COLUMNS * (width + 4), n // COLUMNS * (height + 4)))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    (sheet if chosen.boxes else sheet.quantize(64)).save(chosen.out, optimize=True)  # 64 greys: a smaller file
    print(f"wrote {chosen.out} ({len(tiles)} studies)")


if __name__ == "__main__":
    main()
