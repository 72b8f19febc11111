"""What a view or a label in the configuration may say, and whose rule it becomes."""

from __future__ import annotations

import pytest

from vestibule.config.load import load_repo_config
from vestibule.config.roles import scope_of
from vestibule.config.schema import OperatorConfig
from vestibule.core.errors import ConfigError

BASE = "version: 1\nroles:\n  dev:\n    read: ['**']\n"


@pytest.mark.parametrize(
    ("view", "word"),
    [
        ("{paths: ['data/**'], show: fields}", "names them"),
        ("{paths: ['data/**'], show: header}", "names them"),
        ("{paths: ['data/**'], show: fields, fields: ['a..b']}", "a..b"),
        ("{paths: ['data/**'], show: fields, fields: ['']}", "names with dots"),
        ("{paths: ['data/**'], show: redacted, redact: [emails]}", "no kind of personal data"),
        ("{paths: ['data/**'], show: everything}", "show"),
        ("{paths: [], show: schema}", "paths"),
        ("{paths: ['/data'], show: schema}", "relative"),
        ("{show: schema}", "paths"),
    ],
)
def test_a_view_that_says_nothing_or_names_what_is_not_known_is_an_error(view: str, word: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_repo_config(f"{BASE}views:\n  - {view}\n".encode())
    assert word in str(error.value)


def test_views_keep_whose_they_are() -> None:
    config = load_repo_config(f"{BASE}views:\n  - {{paths: ['**'], show: fields, fields: ['*']}}\n".encode())
    above = OperatorConfig.model_validate({"views": [{"paths": ["data/**"], "show": "schema"}]}, strict=False)
    rules = scope_of(config.roles["dev"], config, above).views
    assert [(rule.by, rule.show) for rule in rules] == [("organisation", "schema"), ("repository", "fields")]
