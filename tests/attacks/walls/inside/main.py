"""Runs the attacks that it is given and prints what each got as one JSON object. `main.py FILE`. *Stdlib only.*"""

# mypy: ignore-errors
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import common

with open(sys.argv[1]) as file:
    common.GIVEN.update(json.load(file))

import files  # noqa: F401
import kernel  # noqa: F401
import network  # noqa: F401
import peers  # noqa: F401

print(json.dumps({name: common.run(name) for name in common.GIVEN["attacks"]}))
