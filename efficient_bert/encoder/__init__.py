"""The network: BERT's layers for any set of tokens at any width."""
