"""One house and one run per module: contract tests look at what is there, they change little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import CONFIG, Done, House, build_house

SCRIPT = """\
  - {text: Looking., tools: [{name: read_file, input: {path: src/app.py}}]}
  - {text: More., tools: [{name: write_file, input: {path: deploy/prod.yaml, content: "replicas: 99"}}]}
  - text: In scope.
    tools:
      - {name: write_file, input: {path: src/app.py, content: "def greet(n):\\n    return f'{n}, please'\\n"}}
  - {text: "Done."}
"""


@dataclass
class Lived:
    """A house in which one run waits for review, with what `run --json` said."""

    house: House
    done: Done

    @property
    def run(self) -> str:
        return str(self.done.json["run"])

    @property
    def object(self) -> dict[str, Any]:
        return self.done.json


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    house = build_house(tmp_path_factory.mktemp("contract"), CONFIG)
    house.script(SCRIPT)
    done = house.run("--agent", "demo")
    assert done.code == 3, done.err
    return Lived(house, done)
