"""The reference agent: a small loop of ours that works only through the context and model gateways.

It exists so that a first run needs no agent CLI, and as the shortest honest example of an agent. The loop itself
(`reference_loop.py`) runs inside the sandbox like any other program, under this machine's Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vestibule import __version__
from vestibule.agents.base import About, Plan, Situation, environment, tail
from vestibule.agents.verified import OURS, Verified
from vestibule.core.ports import Mount

_INSIDE = "/opt/vestibule/reference_loop.py"


class Reference:
    """`adapter: reference`."""

    name = "reference"
    needs_model = True
    about = About(
        modes=("mcp",), cli="reference", verified=(Verified(version=__version__, modes=("mcp",), tests=OURS),)
    )

    def program_version(self, tools: tuple[Path, ...]) -> str:  # noqa: ARG002
        return __version__

    def plan(self, situation: Situation) -> Plan:
        python = Path(sys.executable).resolve()
        mounts = [Mount(source=Path(__file__).with_name("reference_loop.py"), target=_INSIDE)]
        prefix = Path(sys.base_prefix).resolve()
        if not prefix.is_relative_to("/usr"):
            mounts.append(Mount(source=prefix, target=str(prefix)))
        env = {
            **environment(situation),
            "VESTIBULE_MODEL": situation.task.agent.model,
            "PYTHONUNBUFFERED": "1",
        }
        return Plan(argv=(str(python), "-I", "-S", _INSIDE), env=env, mounts=tuple(mounts))

    def last_message(self, transcript: bytes) -> str:
        return tail(transcript)

    def own_denials(self, transcript: bytes) -> tuple[str, ...]:  # noqa: ARG002
        return ()
