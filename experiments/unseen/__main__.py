"""Measure a crack detector on real photos of sources that it never saw.

    python -m experiments.unseen --data DIR --model results/export --out unseen.json --markdown unseen.md
    python -m experiments.unseen --data DIR --baselines --sources deepcrack wall-negatives --max-per-source 10

DIR holds the sources and MANIFEST.csv (columns path, label, mask, group), see sources.py.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from damcrack.files import InputError, write_bytes, write_json
from damcrack.inspection.config import InspectConfig
from damcrack.params import validate
from experiments.commands import command, with_data
from experiments.unseen.measure import Measured, Score, by_row, measure
from experiments.unseen.pages import draw, markdown, write_pictures
from experiments.unseen.rows import summary
from experiments.unseen.scorers import BASELINES, onnx_score, torch_score
from experiments.unseen.sources import Photo, read_photos


def arguments() -> argparse.Namespace:
    """What the command line says."""
    usual = InspectConfig()
    parser = command("unseen", __doc__)
    parser.add_argument("--model", type=Path, help="folder that `damcrack export` wrote, or an ONNX file")
    parser.add_argument("--weights", type=Path, help="folder that `damcrack finetune` wrote")
    parser.add_argument(
        "--scales", type=float, nargs="+", default=usual.scales, help="sizes at which --model sees a photo"
    )
    parser.add_argument(
        "--refine-from",
        type=float,
        default=usual.refine_from,
        help="probability at a smaller size from which --model looks at a window in a larger one",
    )
    parser.add_argument("--baselines", action="store_true", help="measure filters that learned nothing, too")
    parser.add_argument("--sources", nargs="+", default=(), help="default: all")
    parser.add_argument(
        "--max-per-source", type=int, help="photos, or ready tiles of each class, spread evenly"
    )
    parser.add_argument(
        "--not-among", type=int, default=0, metavar="N", help="leave out what --max-per-source N would take"
    )
    parser.add_argument("--out", type=Path, help="json")
    parser.add_argument("--markdown", type=Path, help="tables; default: printed")
    parser.add_argument("--pictures", type=Path, help="folder for one page of each source")
    return with_data(parser)


def scorers(args: argparse.Namespace) -> dict[str, Score]:
    """The detectors that were asked for, by name.

    Raises:
        InputError: none was, or one cannot be loaded.
    """
    found: dict[str, Score] = {}
    if args.model:
        values = {"scales": args.scales, "refine_from": args.refine_from}
        found[str(args.model)] = onnx_score(args.model, validate("inspect", values, InspectConfig))
    if args.weights:
        found[str(args.weights)] = torch_score(args.weights)
    found |= BASELINES if args.baselines else {}
    if not found:
        raise InputError("nothing to measure; give --model, --weights or --baselines")
    return found


def measured(name: str, score: Score, photos: Sequence[Photo], pictures: Path | None) -> dict[str, Any]:
    """All results of one detector, with how long it took; its pictures under PICTURES/NAME."""
    began_s = time.monotonic()
    rows = by_row(_told(name, measure(photos, score, draw if pictures else None)))
    seconds = time.monotonic() - began_s
    if pictures:
        write_pictures(pictures / Path(name).name, rows)
    return {"seconds": round(seconds, 1), **summary(rows)}


def _told(name: str, results: Iterator[Measured]) -> Iterator[Measured]:
    """Say which source is at work."""
    row = ""
    for one in results:
        if one.photo.source != row:
            row = one.photo.source
            print(f"{name}: {row}", flush=True)
        yield one


def main() -> None:
    """Measure and write."""
    args = arguments()
    try:
        photos = read_photos(args.data, args.sources, args.max_per_source, args.not_among)
        results = {name: measured(name, one, photos, args.pictures) for name, one in scorers(args).items()}
    except InputError as error:
        raise SystemExit(str(error)) from error
    if args.out:
        write_json(args.out, results)
    if args.markdown:
        write_bytes(args.markdown, markdown(results).encode())
    else:
        print(markdown(results))


if __name__ == "__main__":
    main()
