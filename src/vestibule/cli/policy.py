"""`vestibule policy`: lint, explain and test policies."""

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
    """Lint, explain and test policies."""


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
            click.echo(f"{problem.severity}: {name}: {problem.file}:{problem.line}: {problem.what}")
            if problem.next_step:
                click.echo(f"  {problem.next_step}")
        if not bad:
            click.echo(f"Fit to decide: {', '.join(layer.name for layer in layers)}.")
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
    from vestibule.policy import PolicySet

    request = _request(request_file)
    policy = PolicySet.load(load_operator_config().policy, _repository(repo, base))
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
            }
        )
    else:
        _print(found, request)
    return {"allow": OK, "hold": HELD, "deny": REFUSED}[found.verdict.ruling.value]


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def test(folder: Path, *, as_json: bool) -> int:
    """Run the `test_*` rules of the *_test.rego files in FOLDER. Exit 6 when one fails or there is none."""
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import OK, VERIFICATION_FAILED
    from vestibule.policy.lint import require_fit
    from vestibule.policy.testing import run_tests

    results = []
    for layer in _layers(folder):
        require_fit(layer)
        results.extend(run_tests(layer))
    failed = [result for result in results if not result.passed]
    if as_json:
        emit_json({"ok": bool(results) and not failed, "tests": [result.as_json() for result in results]})
    else:
        for result in results:
            word = "pass" if result.passed else "FAIL"
            click.echo(f"{word}  {result.file}: {result.name}{': ' + result.why if result.why else ''}")
        if not results:
            click.echo("There is no test: write rules named test_… in a file ending in _test.rego.", err=True)
        else:
            click.echo(f"{len(results) - len(failed)} of {len(results)} tests passed.")
    return OK if results and not failed else VERIFICATION_FAILED


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

    try:
        git = Git.open(repo)
    except UsageError:
        return {}
    commit = git.commit_of(base)
    if commit is None:
        return {}
    entries = [
        entry
        for entry in git.tree(commit)
        if entry.path.startswith(REPOSITORY_FOLDER + "/") and entry.path.endswith(".rego") and entry.kind == "blob"
    ]
    contents = dict(git.blobs(entry.sha for entry in entries))
    return {entry.path: contents[entry.sha] for entry in entries}


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


def _print(found: Explanation, request: PolicyInput) -> None:
    from vestibule.core.text.sanitize import one_line

    click.echo(f"{found.verdict.ruling.value}  {one_line(request.action)}  {one_line(str(request.resource.get('id')))}")
    for layer in found.layers:
        reasons = ", ".join(layer.reasons) or "nothing against it"
        click.echo(f"  {layer.layer}: {layer.ruling.value} ({reasons}){' ' + layer.error if layer.error else ''}")
    for name in found.deciding_facts:
        click.echo(f"  decided by {one_line(name)} = {one_line(str(request.facts[name]))}")
    for item in found.verdict.refusals:
        click.echo(f"  [{item.rule}] {item.reason} {item.fact}".rstrip())
        click.echo(f"    {item.next.person}")
