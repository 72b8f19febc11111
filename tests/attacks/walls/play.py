"""Starts the battery in its own world, for the tests and for `make walls`.

python -m tests.attacks.walls.play                  both tiers, every wall switched off in turn; writes `found.json`
python -m tests.attacks.walls.play TIER WALL…       only these anew
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import vestibule
from tests.attacks.walls.cases import BY_ID
from vestibule.sandbox.local import ablation

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FOUND = HERE / "found.json"
SHARE = {"root": 95, "user": 85}
"""Of a hundred attacks, so many are stopped by another wall with any one switched off."""


def tiers() -> tuple[str, ...]:
    """Those that this user can play: root both, everybody else their own."""
    return ("root", "user") if os.geteuid() == 0 else ("user",)


def walls(tier: str) -> list[str]:
    """What can be switched off there, in alphabetical order."""
    return sorted(ablation.WALLS - (set() if tier == "root" else {"own_uid"}))


def play(tier: str, without: list[str] | None = None, *, seconds: float = 280) -> dict[str, Any]:
    """One battery; see `battery.py` for what it gives. Raises RuntimeError when it does not come to its end."""
    with tempfile.TemporaryDirectory(prefix="vestibule-walls-") as folder:
        out = Path(folder) / "found.json"
        site = sysconfig.get_paths()["purelib"]
        source = Path(vestibule.__file__).parent.parent
        argv = [sys.executable, str(HERE / "stage.py"), tier, str(out), str(source), site, str(ROOT)]
        done = subprocess.run(
            [*argv, *(without or [])],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the battery ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return found


def opened(round_: dict[str, Any]) -> dict[str, list[str]]:
    """Attacks that got something, with what."""
    return {
        name: result["opened"]
        for name, result in round_.items()
        if result["opened"] and BY_ID[name].expected == "stopped"
    }


def share(round_: dict[str, Any]) -> float:
    """How many of a hundred attacks were stopped."""
    return 100 * (1 - len(opened(round_)) / attacks(round_)) if attacks(round_) else 0.0


def attacks(round_: dict[str, Any]) -> int:
    """How many attacks were played."""
    return sum(BY_ID[name].expected == "stopped" for name in round_)


def summary(tier: str, battery: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a tier: no times, no random parts."""
    return {
        "results": {name: sorted(result["opened"]) for name, result in sorted(battery["all"].items())},
        "control": sorted(name for name, result in battery["control"].items() if result["opened"]),
        "without": {wall: sorted(opened(battery[wall])) for wall in walls(tier)},
        "played": {wall: attacks(battery[wall]) for wall in walls(tier)},
    }


def main(arguments: list[str]) -> int:
    """Plays and writes; given a tier and walls, only these are played anew."""
    if os.geteuid() != 0:
        print("Both tiers are played by root only.", file=sys.stderr)
        return 2
    kept = json.loads(FOUND.read_text("utf-8")) if arguments else {}
    failed = False
    for tier in arguments[:1] or tiers():
        some = arguments[1:]
        battery = play(tier, ["only", *some] if some else walls(tier), seconds=1800)
        print(tier, battery["seconds"], "left:", battery["residue"])
        for case, why in battery["failed"].items():
            print(tier, case, why, file=sys.stderr)
        failed = failed or bool(battery["failed"] or battery["residue"])
        if some:
            kept[tier]["without"] |= {wall: sorted(opened(battery[wall])) for wall in some}
            kept[tier]["played"] |= {wall: attacks(battery[wall]) for wall in some}
        else:
            kept[tier] = summary(tier, battery)
    FOUND.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
