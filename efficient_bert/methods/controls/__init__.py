"""Controls: methods that choose as much as another one, but not by what they read."""
