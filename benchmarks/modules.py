"""How many modules does one image on `onspect score`, and one frame of `onspect run`, load?

Each TREE is a working tree, such as of `git worktree add --detach older faf0f6f`. Prints for each the number of our
modules and of all modules that the process has loaded at its end. Needs onspect[cpu].

    python benchmarks/modules.py part.onnx part.png TREE [TREE...] [--names]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from race import tree_environment

_PROGRAM = (
    "import atexit, json, sys; from pathlib import Path\n"
    "atexit.register(lambda: Path(sys.argv.pop()).write_text(json.dumps(sorted(sys.modules))))\n"
    "from onspect.runtime.cli import main; main(sys.argv[1:-1])"
)


def list_modules(tree: Path, arguments: list[str]) -> list[str]:
    """Return the names of all modules that a command of a working tree has loaded at its end."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "modules.json")
        command = [sys.executable, "-c", _PROGRAM, *arguments, str(names)]
        subprocess.run(command, env=os.environ | tree_environment(tree), check=True, stdout=subprocess.DEVNULL)
        return list(json.loads(names.read_text(encoding="utf-8")))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("trees", type=Path, nargs="+")
    parser.add_argument("--names", action="store_true", help="Name our modules too.")
    arguments = parser.parse_args()
    model, image = str(arguments.model.resolve()), arguments.image.resolve()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, image.name).symlink_to(image)
        for name, files in (("score", str(image)), ("run", folder)):
            for tree in arguments.trees:
                modules = list_modules(tree.resolve(), [name, model, files, "-q"])
                ours = [module for module in modules if module.split(".")[0] == "onspect"]
                print(f"{name:<6} {len(ours):>4} of ours, {len(modules):>4} in all: {tree}")
                if arguments.names:
                    print("\n".join(f"  {module}" for module in ours))


if __name__ == "__main__":
    main()
