"""The command `capsad tables`."""

from pathlib import Path

import click

from models.errors import UserError
from pipeline.cli.json_output import json_option, print_json
from pipeline.cli.options import Command


@click.command(cls=Command)
@click.argument("study", metavar="[DIR]", default="runs/study")
@click.option("--cards", metavar="FOLDER", help="Folder of the model cards.  [default: DIR/cards]")
@json_option
def tables(study: str, cards: str | None, as_json: bool) -> None:
    """Make tables, figures and model cards from DIR/results.csv, the results of studies.

    Writes DIR/results.md, DIR/figures, and a card for each detector, data set and budget. DIR is
    runs/study if it is left out.
    """
    from pipeline.study import cards as model_cards
    from pipeline.study import figures, results

    folder = Path(study)
    found = results.read(folder)
    if not found:
        raise UserError(
            f"There is no {folder / 'results.csv'} with results: first run `capsad study`, or name "
            "its output folder."
        )
    place = Path(cards) if cards else folder / "cards"
    tables_file, count = figures.write(found, folder), model_cards.write(found, place)
    if as_json:
        print_json("tables", tables=tables_file, cards=place, number_of_cards=count)
        return
    click.echo(f"  tables and figures: {tables_file}")
    click.echo(f"  model cards: {count} in {place}")
