"""`vestibule policy`: lint, explain, test and replay policies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vestibule.core.ports import PolicyInput
    from vestibule.policy import Explanation
    from vestibule.policy.layers import Layer

REPOSITORY_FOLDER = ".vestibule/policy"


@click.group()
def command() -> None:
    """Lint, explain, test and replay policies."""


@command.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def lint(folder: Path | None, *, as_json: bool) -> int:
    """Check the policies in FOLDER, or all that would take part here. Exit 6 when one is not fit to decide."""
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import OK, VERIFICATION_FAILED
    from vestibule.policy.lint import lint as find_problems

    layers = _layers(folder)
    problems = [(layer.name, problem) for layer in layers for problem in find_problems(layer)]
    bad = any(problem.severity == "error" for _, problem in problems)
    if as_json:
        found = [{"layer": name, **problem.as_json()} for name, problem in problems]
        emit_json({"ok": not bad, "layers": [layer.name for layer in layers], "problems": found})
    else:
        for name, problem in problems:
            _say(f"{problem.severity}: {name}: {problem.file}:{problem.line}: {problem.what}")
            if problem.next_step:
                _say(f"  {problem.next_step}")
        if not bad:
            _say(f"Fit to decide: {', '.join(layer.name for layer in layers)}.")
    return VERIFICATION_FAILED if bad else OK


@command.command()
@click.argument("request_file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--repo", type=click.Path(path_type=Path), default=Path(), help="Whose policy takes part.")
@click.option("--base", default="HEAD", help="The commit whose policy takes part.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def explain(request_file: Path, repo: Path, base: str, *, as_json: bool) -> int:
    """Say how policy decides the request in FILE (a policy input as JSON; `-` is standard input), and why.

    The exit code is the verdict's: 0 allow, 3 hold, 4 deny.
    """
    from vestibule.cli.output import emit_json
    from vestibule.config.load import load_operator_config
    from vestibule.core.errors import HELD, OK, REFUSED
    from vestibule.pipeline.policies import load_policy

    request = _request(request_file)
    policy = load_policy(load_operator_config(), None, _repository(repo, base))
    found = policy.explain(request)
    if as_json:
        emit_json(
            {
                "verdict": found.verdict.ruling.value,
                "reasons": list(found.verdict.reasons),
                "refusals": [item.as_json() for item in found.verdict.refusals],
                "policy_digest": policy.digest,
                "layers": [layer.model_dump(mode="json") for layer in found.layers],
                "deciding_facts": list(found.deciding_facts),
                "places": {reason: list(where) for reason, where in found.places.items()},
                "change": found.change,
                "turned": found.turned
                and {
                    "verdict": found.turned.ruling.value,
                    "reasons": list(found.turned.reasons),
                },
            }
        )
    else:
        _print(found, request)
    return {"allow": OK, "hold": HELD, "deny": REFUSED}[found.verdict.ruling.value]


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def test(folder: Path, *, as_json: bool) -> int:
    """Run the tests beside the policies in FOLDER: `test_*` rules (*_test.rego) and decisions (*_test.json).

    Says which rules the tests hold up: those whose loss a test would notice. Exit 6 when a test fails or there is none.
    """
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import OK, VERIFICATION_FAILED
    from vestibule.policy.coverage import coverage, percent, summary
    from vestibule.policy.lint import require_fit
    from vestibule.policy.testing import decision_tests, run_decisions, run_tests

    [layer] = _layers(folder)
    require_fit(layer)
    decisions = decision_tests(folder)
    rules = run_tests(layer)
    results = [*rules, *run_decisions(layer, decisions)]
    failed = [result for result in results if not result.passed]
    covered = coverage(layer, [result.name for result in rules], [test.input for test in decisions]) if results else []
    reasons = {reason: rule.covered for rule in covered for reason in rule.reasons}
    if as_json:
        emit_json(
            {
                "ok": bool(results) and not failed,
                "tests": [result.as_json() for result in results],
                "coverage": {
                    "percent": percent(covered),
                    "files": dict(summary(covered)),
                    "rules": [rule.as_json() for rule in covered],
                    "reasons_not_reached": sorted(reason for reason, reached in reasons.items() if not reached),
                },
            }
        )
    else:
        for result in results:
            word = "pass" if result.passed else "FAIL"
            _say(f"{word}  {result.file}: {result.name}{': ' + result.why if result.why else ''}")
        if not results:
            click.echo("There is no test: write rules named test_… in a file ending in _test.rego.", err=True)
        else:
            for rule in covered:
                if not rule.covered:
                    why = f" ({', '.join(rule.reasons)})" if rule.reasons else ""
                    _say(f"      {rule.file}:{rule.first_line}: no test notices the loss of `{rule.name}`{why}")
            held = sum(rule.covered for rule in covered)
            _say(f"{len(results) - len(failed)} of {len(results)} tests passed.")
            _say(f"Coverage: {held} of {len(covered)} rules ({percent(covered)} %).")
    return OK if results and not failed else VERIFICATION_FAILED


@command.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--base", default="", help="Take each run's repository policy from this commit, not from its own base.")
@click.option(
    "--run", "runs", multiple=True, help="Only this run (may be given several times); else all that are kept."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def replay(folder: Path | None, base: str, runs: tuple[str, ...], *, as_json: bool) -> int:
    """Ask another policy about the decisions of past runs: which verdicts differ.

    FOLDER takes the place of the operator's policy folders; `--base` that of the repository's policy. Exit 6 when a
    verdict differs. Nothing is recorded and nothing happens.
    """
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import OK, VERIFICATION_FAILED, UsageError
    from vestibule.core.text.sanitize import one_line
    from vestibule.git import Git
    from vestibule.pipeline.inputs import kept_inputs
    from vestibule.pipeline.policies import load_policy, repository_policy
    from vestibule.pipeline.replay import Replay
    from vestibule.pipeline.replay import replay as ask_again
    from vestibule.pipeline.services import Services
    from vestibule.policy import PolicySet

    if folder is None and not base:
        raise UsageError("There is no other policy to try.", next_step="Give a folder, or a commit with `--base`.")
    services = Services()
    policies: dict[tuple[Path, str], PolicySet] = {}
    result = Replay()
    chosen = [services.runs.get(run) for run in runs] if runs else services.runs.all()
    for record in chosen:
        try:
            git = Git.open(record.repo)
            commit = git.commit_of(base or record.base_commit)
            if commit is None:
                raise UsageError(f"There is no commit {one_line(base or record.base_commit)} in {record.repo}.")
        except UsageError as error:
            if runs:
                raise
            result.left_out[record.id] = error.what
            continue
        key = (record.repo, commit)
        if key not in policies:
            organisation = None if folder is None else [folder]
            files = repository_policy(git, commit)
            policies[key] = load_policy(services.operator, None, files, organisation=organisation)
        events = ((entry.seq, entry.event) for entry in services.audit.entries(run=record.id))
        ask_again(policies[key], events, kept_inputs(services.folder(record.id)), result)
    if as_json:
        emit_json({"ok": not result.differences, "runs": len(chosen) - len(result.left_out), **result.as_json()})
    else:
        for item in result.differences:
            before, after = (f"{word} ({', '.join(why)})" if why else word for word, why in (item.before, item.after))
            _say(f"{item.run} #{item.seq} {item.action} {one_line(item.resource)}: {before} -> {after}")
        asked = len(chosen) - len(result.left_out)
        _say(f"{result.replayed} of {result.decisions} decisions of {asked} runs were asked again.")
        if result.without_input:
            _say(f"No input is kept for {len(result.without_input)} of them, so nothing is said about those.")
        for run, why in result.left_out.items():
            _say(f"{run} was left out: {why}")
        _say(f"{len(result.differences)} verdicts differ.")
    return VERIFICATION_FAILED if result.differences else OK


def _layers(folder: Path | None) -> list[Layer]:
    from vestibule.config.load import load_operator_config
    from vestibule.policy.layers import folder_layer, organisation_layers, shipped_layer

    if folder is not None:
        return [folder_layer("folder", folder)]
    layers = [shipped_layer(), *organisation_layers([Path(item) for item in load_operator_config().policy])]
    own = Path(REPOSITORY_FOLDER)
    if any(own.rglob("*.rego")):
        layers.append(folder_layer("repository", own))
    return layers


def _repository(repo: Path, base: str) -> dict[str, bytes]:
    """The policy files of a commit; none where there is no repository."""
    from vestibule.core.errors import UsageError
    from vestibule.git import Git
    from vestibule.pipeline.policies import repository_policy

    try:
        git = Git.open(repo)
    except UsageError:
        return {}
    commit = git.commit_of(base)
    if commit is None:
        return {}
    return repository_policy(git, commit)


def _request(source: Path) -> PolicyInput:
    import json

    from pydantic import ValidationError

    from vestibule.core.errors import UsageError
    from vestibule.core.ports import PolicyInput

    try:
        data = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
    except OSError as error:
        raise UsageError(f"The policy input {source} cannot be read.", why=f"{error.strerror}.") from None
    try:
        value: Any = json.loads(data)
        return PolicyInput.model_validate(value)
    except (ValueError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f"{source} holds no policy input.",
            why=f"{why}.",
            next_step="Give a JSON object with action, subject, resource, task, labels and facts.",
        ) from None


def _say(line: str) -> None:
    """One visible line: names of files and rules, and what tests say, may come from a repository that nobody trusts."""
    from vestibule.core.text.sanitize import one_line

    click.echo(one_line(line, 4000))


def _print(found: Explanation, request: PolicyInput) -> None:
    from vestibule.core.text.sanitize import one_line

    _say(f"{found.verdict.ruling.value}  {one_line(request.action)}  {one_line(str(request.resource.get('id')))}")
    for layer in found.layers:
        reasons = ", ".join(layer.reasons) or "nothing against it"
        _say(f"  {layer.layer}: {layer.ruling.value} ({reasons}){' ' + layer.error if layer.error else ''}")
    for name in found.deciding_facts:
        _say(f"  decided by {one_line(name)} = {one_line(str(request.facts[name]))}")
    for reason, places in found.places.items():
        _say(f"  {reason} stands at {', '.join(places) or 'no place in the text: it is made from a fact'}")
    if found.change is not None and found.turned is not None:
        change = ", ".join(f"{one_line(name)} = {one_line(str(value))}" for name, value in found.change.items())
        _say(f"  it would be {found.turned.ruling.value} with {change}")
    else:
        _say("  no change of up to three facts turns it")
    for item in found.verdict.refusals:
        _say(f"  [{item.rule}] {item.reason} {item.fact}".rstrip())
        _say(f"    {item.next.person}")
