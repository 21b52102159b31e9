"""The one exception for what a user can put right."""


class UserError(ValueError):
    """Says in one plain sentence what is wrong with the input and what to do.

    The command line prints the message as one line and exits with code 2. The message speaks of
    settings, not of command-line options, because the models are also used without a command
    line; whoever has options adds how to set `settings`.

    Args:
        message: the sentence.
        *settings: names of the settings whose values are at fault or can help, such as
            `image_size`.

    The exception crosses process and Beam worker boundaries, so it holds only text.
    """

    def __init__(self, message: str, *settings: str):
        super().__init__(message, *settings)  # Beam and pickle rebuild it from these.

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings."""
        return self.args[1:]

    def __str__(self) -> str:
        return self.args[0]
