"""`python -m vervet`, the same as the command `vervet`."""

import sys

from vervet.cli import main

sys.exit(main())
