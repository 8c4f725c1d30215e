"""The exception raised for values a caller may not pass."""


class InputError(ValueError):
    """A value breaks a rule: the message says the value, the rule and the remedy, in one line."""
