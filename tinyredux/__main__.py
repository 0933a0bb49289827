"""`python -m tinyredux`."""

import sys

from tinyredux.cli import main

sys.exit(main())
