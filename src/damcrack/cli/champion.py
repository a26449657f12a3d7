"""The commands about who is champion; the work is in edges.promotion and edges.lineage."""

from pathlib import Path

import click

MODEL = "dam-crack-detector"
MODEL_NAME = click.option("--model-name", default=MODEL, show_default=True, help="Name in the registry.")
PARAMS = click.option(
    "--params",
    "params_path",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="File whose section `register` holds the policy.",
)
PATH = click.Path(path_type=Path)


@click.command()
@click.option("--photos", type=PATH, required=True, help="Output folder of `photos`.")
@click.option("--tiles", type=PATH, required=True, help="Output folder of `tile`, cut from these photos.")
@click.option("--out", type=PATH, required=True, help="Folder to write.")
def freeze(photos: Path, tiles: Path, out: Path) -> None:
    """Write the test tiles as a frozen evaluation set, on which models compete for years.

    Prints its digest: `register.evaluation_sha256` in params.yaml, with the folder or its s3:// copy as
    `register.evaluation_set`, makes every later decision rest on this set and no other.
    """
    from damcrack.cli import promotion

    promotion.freeze(photos, tiles, out)


@click.command()
@click.argument("target", metavar="VERSION|NAME")
@click.option("--evaluation-set", help="Folder or s3:// prefix of a frozen set; default: that of the graph.")
@click.option("--sha256", help="Digest that the evaluation set must have; an s3:// set needs it.")
@PARAMS
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A value that wins over params.yaml's."
)
def promote(
    target: str, evaluation_set: str | None, sha256: str | None, params_path: Path, settings: tuple[str, ...]
) -> None:
    """Let a registered version compete with the champion; make it champion if it is shown to be better.

    Both are loaded from the registry, their hashes checked, and scored anew on one evaluation set. The same gate as
    in the stage `register`; docs/promotion.md says how it decides.

    \b
    damcrack promote 7
    damcrack promote dam-crack-detector              # its challenger
    damcrack promote 7 --evaluation-set s3://dam/frozen-2026 --sha256 4f6c... --set min_gain=0.01
    """  # noqa: D301  # click wants the character itself
    from damcrack.cli import promotion

    promotion.promote(target, evaluation_set, sha256, params_path, settings)


@click.command()
@click.argument("made", type=PATH, default=Path("results/register"))
def registered(made: Path) -> None:
    """Succeed if running `register` again would change nothing: it was recorded in MADE, and the registry agrees.

    The registry holds the model under these hashes as challenger, and it is champion, or was decided on by the same
    policy on the same evaluation set against the present champion. If not, the exit status is 1 and a line says why.
    """
    from damcrack.cli import promotion

    promotion.registered(made)


@click.command()
@MODEL_NAME
@click.option("--reason", required=True, help="Why the champion goes; kept for who asks later.")
@click.option("--to", metavar="VERSION", help="Version to make champion; default: the champion before.")
def rollback(model_name: str, reason: str, to: str | None) -> None:
    """Go back to the champion before, or to a named version, once its files are checked.

    \b
    damcrack rollback --reason "missed a crack at block 12"
    """  # noqa: D301  # click wants the character itself
    from damcrack.cli import promotion

    promotion.rollback(model_name, reason, to)


@click.command()
@MODEL_NAME
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def history(model_name: str, as_json: bool) -> None:
    """Tell every decision about a model: promoted, kept, refused, rolled back, moved by hand; by whom and why."""
    from damcrack.cli import promotion

    promotion.history(model_name, as_json)


@click.command()
@click.argument("target", metavar="VERSION|PHOTO")
@MODEL_NAME
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def lineage(target: str, model_name: str, as_json: bool) -> None:
    """Tell what a version was made from, or which models a photo trained.

    VERSION is a number, NAME/VERSION or NAME@ALIAS. PHOTO is a file or the sha256 of one.

    \b
    damcrack lineage dam-crack-detector@champion
    damcrack lineage spillway/DSC01234.jpg
    """  # noqa: D301  # click wants the character itself
    from damcrack.registry import lineage as told

    told.lineage(target, model_name, as_json)


COMMANDS = (freeze, promote, registered, rollback, history, lineage)
