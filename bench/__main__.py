"""`python -m bench`, for launchers such as `accelerate launch -m bench train ...`."""

from bench.cli import main

main()
