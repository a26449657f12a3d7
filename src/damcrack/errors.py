"""The exceptions that callers catch."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, got, expected and how to mend it."""


class PhotoError(InputError):
    """One image cannot be used; it is set aside with this message as its reason and the rest goes on."""


class NonFiniteLossError(InputError):
    """The loss became NaN or infinite; the message names epoch and step."""
