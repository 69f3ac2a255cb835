"""``python -m leuk``: the same as ``leuk``."""

import sys

from leuk.cli import main

sys.exit(main())
