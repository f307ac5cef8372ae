"""Errors and warnings for users."""

import unicodedata

# Unicode's categories of control codes, of lone surrogates, and of line and paragraph separators.
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")


class CakeError(ValueError):
    """An error that the user can mend. Its message is one line that names the field or file, and says what to do.

    The message may hold names that others chose, such as those of files, so it is shown as `printable` shows it.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class CakeWarning(UserWarning):
    """Something that was changed so that the work can go on. Its message is one line, as that of a `CakeError`."""


def printable(text: str) -> str:
    """The text in one line: a question mark stands for each control code, line break and byte that is no UTF-8."""
    return "".join("?" if unicodedata.category(letter) in _UNSHOWN else letter for letter in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
