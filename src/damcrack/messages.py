"""What a user is shown: no password, and no character that a terminal takes as a command."""

import re

_PASSWORD = re.compile(
    r"(?<=:/)(/?)(?!/)[^/@\s:]*:(?!\d+(?:[^\w@%]|$))[^@\n]*@(?:\S*@)?"  # user:password@, whatever is in it
    r"|(?<=s3:/)(/)[^/\s]*@"  # in the name of an object @ is a letter like others
    r"|(?<!s3:/)(?<=:/)(/)(?!/)\S*@",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    r"([?&;][\w.%-]*(?:passw|pwd|secret|token|signature|credential|key)[\w.%-]*=)[^&;\s'\"]+", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def without_passwords(text: str) -> str:
    """The text with user, password and secret parameters cut out of every address in it."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(lambda found: "".join(filter(None, found.groups())), text))


def shown(text: object) -> str:
    """A message as it may go to a terminal; control characters become their numbers."""
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], without_passwords(str(text)))
