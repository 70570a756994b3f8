"""``python -m managed_store``: the command ``managed-store``."""

from __future__ import annotations

import sys

from managed_store.cli import main

if __name__ == "__main__":
    sys.exit(main())
