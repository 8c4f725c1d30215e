"""The one exception a user of this package is meant to read."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says the value, the rule and the remedy, in one line."""
