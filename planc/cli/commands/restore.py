"""``planc restore``: undo ``planc apply`` on files."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli.options import FILE, json_option, weights_output_option
from planc.cli.terminal import check_writable, note, print_json, status
from planc.errors import PlancError


@click.command()
@click.argument("weights", type=FILE)
@click.option(
    "--removed",
    type=FILE,
    metavar="DIR",
    required=True,
    help="The directory written by planc apply --keep-removed.",
)
@weights_output_option("The original.")
@json_option
def restore(weights: Path, removed: Path, output: Path, overwrite: bool, as_json: bool) -> None:
    """Undo planc apply on WEIGHTS: write the original, bit for bit.

    Weights trained since then keep their new values; the removed ones come back.

    Example: planc restore small.safetensors --removed removed/ -o again.safetensors
    """
    check_writable(output, directories=True)
    import planc
    from planc.files.cut.masking import holds_masks, unmask_files

    if not removed.is_dir():
        raise PlancError(f"--removed {removed}: no directory; name that of apply --keep-removed")
    back = unmask_files if holds_masks(removed) else planc.restore_files
    with status(f"restoring {weights}"):
        exact = back(weights, removed, output, overwrite=overwrite)
    if as_json:
        print_json({"output": str(output), "exact": exact})
    same = "the original, byte for byte" if exact else "kept values have changed since"
    note(f"wrote {output}: {same}")
