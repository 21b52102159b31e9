"""The one exception for what a user can put right."""


class UserError(ValueError):
    """Bad input: names the file or option, what is wrong with it and what to do.

    The command line prints its message as one line and exits with code 2. It crosses process
    and Beam worker boundaries, so it carries nothing but its message.
    """
