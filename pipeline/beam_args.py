"""Apache Beam's arguments, the same for every Beam job of the project."""

from collections.abc import Sequence

from models.errors import UserError

_DEFAULTS = (
    # In this process. Newer direct runners first try to download another engine.
    "--runner=FnApiRunner",
    # Without it TFX builds a source distribution for each component.
    "--sdk_container_image=none",
)


def beam_args(given: Sequence[str] = ()) -> list[str]:
    """The defaults, where they are not among the `given` arguments, and those.

    Args:
        given: of the form `--NAME=VALUE` or `--NAME`.

    Raises:
        UserError: if an argument is not of that form, or its runner loses data.
    """
    for argument in given:
        if not argument.startswith("--") or " " in argument.partition("=")[0]:
            raise UserError(f"The Beam argument '{argument}' is not of the form --NAME=VALUE.")
        if argument.endswith("DaskRunner"):
            raise UserError(
                "Beam's DaskRunner silently loses data: take another runner, see BUILD.md."
            )
    names = {argument.partition("=")[0] for argument in given}
    return [value for value in _DEFAULTS if value.partition("=")[0] not in names] + list(given)
