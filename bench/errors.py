"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says the value, the rule and the remedy, in one line."""


def first_line(error: Exception) -> str:
    """What another library's error says first: the rest is for its developers."""
    return str(error).strip().partition("\n")[0]
