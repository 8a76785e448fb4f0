"""`python -m vllmchat`: the command line."""

from __future__ import annotations

from vllmchat.cli.main import main

if __name__ == "__main__":
    main()
