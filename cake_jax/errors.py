"""Errors and warnings for users."""


class CakeError(ValueError):
    """An error that the user can mend. Its message is one line that names the field or file, and says what to do."""


class CakeWarning(UserWarning):
    """Something that was changed so that the work can go on. Its message is one line, as that of a `CakeError`."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
