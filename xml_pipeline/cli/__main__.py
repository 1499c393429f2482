"""``python -m xml_pipeline.cli``."""

import sys

from xml_pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
