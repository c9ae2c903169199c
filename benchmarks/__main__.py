"""Run one benchmark by name; without a name, the short one that needs no data.

python -m benchmarks
python -m benchmarks builds --corpus openstax.jsonl.gz
"""

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import benchmarks
from benchmarks import demo


def main(arguments: Sequence[str] | None = None) -> int:
    name, *rest = arguments or [""]
    module = name.replace("-", "_")
    names = [found.name for found in pkgutil.iter_modules(benchmarks.__path__) if found.name != "__main__"]
    if module in names:
        importlib.import_module(f"benchmarks.{module}").main(rest)
        return 0
    if not name:
        demo.main([])
        print()
    print("Benchmarks: python -m benchmarks NAME, with --help for what it takes.")
    for known in names:
        described = importlib.import_module(f"benchmarks.{known}").__doc__ or ""
        print(f"  {known.replace('_', '-'):15} {described.splitlines()[0]}")
    return 0 if name in ("", "-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
