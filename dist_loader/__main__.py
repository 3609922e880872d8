"""`python -m dist_loader` is `dist-loader`."""

import sys

from dist_loader.cli.main import main

sys.exit(main())
