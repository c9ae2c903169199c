"""Run one benchmark by name, or say which there are.

python -m benchmarks builds --corpus openstax.jsonl.gz
"""

import importlib
import pkgutil
import sys

import benchmarks


def main(arguments: list[str]) -> int:
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__"]
    if not arguments or arguments[0] not in names:
        print(__doc__)
        for name in names:
            described = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
            print(f"  {name:12} {described.splitlines()[0]}")
        return 2 if arguments else 0
    importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
