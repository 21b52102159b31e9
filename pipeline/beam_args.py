"""The arguments of Apache Beam, which are the same for all Beam jobs of the project."""

from collections.abc import Sequence

from models.errors import UserError

_DEFAULTS = (
    # This runner works in this process. Newer direct runners first try to download another engine.
    "--runner=FnApiRunner",
    # Without this argument, TFX builds a source distribution for each component.
    "--sdk_container_image=none",
)


def beam_args(given: Sequence[str] = ()) -> list[str]:
    """Returns the `given` arguments, and the defaults of all other arguments.

    Args:
        given: arguments of the form `--NAME=VALUE` or `--NAME`.

    Raises:
        UserError: if an argument does not have this form, or if its runner loses data.
    """
    for argument in given:
        if not argument.startswith("--") or " " in argument.partition("=")[0]:
            raise UserError(f"The Beam argument '{argument}' is not of the form --NAME=VALUE.")
        if argument.endswith("DaskRunner"):
            raise UserError(
                "Beam's DaskRunner silently loses data: use another runner, see BUILD.md."
            )
    names = {argument.partition("=")[0] for argument in given}
    return [value for value in _DEFAULTS if value.partition("=")[0] not in names] + list(given)
