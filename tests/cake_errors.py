"""The messages of errors that a user can mend."""

import pytest

from cake_jax.types import CakeError


def message_of(call, *arguments, **options):
    """Returns the message of the `CakeError` that a call raises. The message must be one line."""
    with pytest.raises(CakeError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message.strip()
    assert "\n" not in message
    return message
