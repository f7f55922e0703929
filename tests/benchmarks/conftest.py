"""What do the tests of the benchmarks share? The path to them: they are files of the repository, not of the package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
