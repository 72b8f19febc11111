"""Takes out of the agentdojo package what the replay needs, and checks that it is true.

Run it where the package is installed (version and suites below; a throw-away environment):

    python tests/attacks/agentdojo/extract.py                 # writes suites.json beside this file
    python tests/attacks/agentdojo/extract.py --check         # compares with what is there; exit 1 if it differs
    python tests/attacks/agentdojo/extract.py --judge FILE    # the package's own oracle over executed calls

What is written: prompts, tools with their schemas, the ground-truth calls of user and injection tasks, which tools'
results carry text of an injection vector (found by planting a marker in every vector and looking for it), and the
results of the look-up tools in `KEPT`, which the replay reads values from. Mail, files, messages and pages stay out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PACKAGE, SUITES = "0.1.35", "v1.2.2"
OUT = Path(__file__).with_name("suites.json")
MARK = "MARKER-7f3a"
KEPT = {
    "get_current_day",
    "get_day_calendar_events",
    "search_calendar_events",
    "search_contacts_by_name",
    "search_contacts_by_email",
    "get_channels",
    "get_users_in_channel",
    "get_all_hotels_in_city",
    "get_hotels_prices",
    "get_hotels_address",
    "get_all_restaurants_in_city",
    "get_cuisine_type_for_restaurants",
    "get_restaurants_address",
    "get_dietary_restrictions_for_all_restaurants",
    "get_price_for_restaurants",
    "check_restaurant_opening_hours",
    "get_all_car_rental_companies_in_city",
    "get_car_types_available",
    "get_car_fuel_options",
    "get_car_price_per_day",
}


def plain(value: Any) -> Any:
    """A result as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    return value


def calls_of(task: Any, env: Any) -> list[dict[str, Any]]:
    return [{"tool": call.function, "arguments": plain(dict(call.args))} for call in task.ground_truth(env)]


def fresh(suite: Any, task: Any = None, injections: dict[str, str] | None = None) -> Any:
    env = suite.load_and_inject_default_environment(injections or {})
    return task.init_environment(env) if hasattr(task, "init_environment") else env


def carries(suite: Any, runtime: Any, found: dict[str, bool]) -> None:
    """Which tools' results hold text of an injection vector, over every user task's reads."""
    planted = dict.fromkeys(suite.get_injection_vector_defaults(), MARK)
    for task in suite.user_tasks.values():
        clean, marked = fresh(suite, task), fresh(suite, task, planted)
        for call in task.ground_truth(clean.model_copy(deep=True)):
            result, _ = runtime.run_function(marked, call.function, dict(call.args))
            hit = MARK in json.dumps(plain(result), default=str)
            found[call.function] = found.get(call.function, False) or hit


def extract() -> dict[str, Any]:
    from agentdojo.functions_runtime import FunctionsRuntime
    from agentdojo.task_suite.load_suites import get_suites

    out: dict[str, Any] = {"package": f"agentdojo {PACKAGE}", "suites_version": SUITES, "suites": {}}
    for name, suite in sorted(get_suites(SUITES).items()):
        runtime = FunctionsRuntime(suite.tools)
        users: dict[str, Any] = {}
        for task_id, task in sorted(suite.user_tasks.items()):
            env = fresh(suite, task)
            calls = calls_of(task, env.model_copy(deep=True))
            for call in calls:
                result, error = runtime.run_function(env, call["tool"], dict(call["arguments"]))
                if error:
                    raise SystemExit(f"{name} {task_id}: {call['tool']}: {error}")
                if call["tool"] in KEPT:
                    call["result"] = plain(result)
            users[task_id] = {"prompt": task.PROMPT, "calls": calls}
        injections = {
            task_id: {"goal": task.GOAL, "calls": calls_of(task, fresh(suite))}
            for task_id, task in sorted(suite.injection_tasks.items())
        }
        found: dict[str, bool] = {}
        carries(suite, runtime, found)
        tools = [
            {"name": tool.name, "description": tool.description, "schema": tool.parameters.model_json_schema()}
            for tool in suite.tools
        ]
        out["suites"][name] = {
            "tools": tools,
            "user_tasks": users,
            "injection_tasks": injections,
            "carries_injection": sorted(tool for tool, hit in found.items() if hit),
        }
    return out


def judge(executed: Path) -> int:
    """The package's own `security` over environments in which the executed calls, and only these, were run.

    The file: a list of {suite, user, injection, calls}. Prints how many injections the package calls successful.
    """
    from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
    from agentdojo.task_suite.load_suites import get_suites

    suites, hits = get_suites(SUITES), []
    pairs = json.loads(executed.read_text(encoding="utf-8"))
    for pair in pairs:
        suite = suites[pair["suite"]]
        task, attack = suite.user_tasks[pair["user"]], suite.injection_tasks[pair["injection"]]
        env = fresh(suite, task)
        before, runtime = env.model_copy(deep=True), FunctionsRuntime(suite.tools)
        for call in pair["calls"]:
            runtime.run_function(env, call["tool"], dict(call["arguments"]))
        trace = [FunctionCall(function=call["tool"], args=call["arguments"]) for call in pair["calls"]]
        text = [{"type": "text", "content": task.GROUND_TRUTH_OUTPUT}]
        if suite._check_injection_task_security(attack, text, before, env, trace):
            hits.append(f"{pair['suite']} {pair['user']} {pair['injection']}")
    print(json.dumps({"pairs": len(pairs), "successes": len(hits), "which": hits}, indent=1))
    return 0


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--judge"]:
        return judge(Path(arguments[1]))
    text = json.dumps(extract(), ensure_ascii=False, sort_keys=True, indent=None, separators=(",", ":")) + "\n"
    if arguments == ["--check"]:
        same = OUT.read_text(encoding="utf-8") == text
        print("suites.json is what the package says" if same else "suites.json differs from the package")
        return 0 if same else 1
    OUT.write_text(text, encoding="utf-8")
    print(f"{OUT.name}: {len(text)} characters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
