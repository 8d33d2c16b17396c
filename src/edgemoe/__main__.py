"""``python -m edgemoe`` is the same as the command ``edgemoe``."""

from __future__ import annotations

import sys

from edgemoe.cli.main import main

sys.exit(main())
