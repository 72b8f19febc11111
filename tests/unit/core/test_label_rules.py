"""Labels of files: the first rule decides, and many files have the join of their labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vestibule.core.labels import (
    REPOSITORY,
    Confidentiality,
    Integrity,
    Label,
    LabelRule,
    joined,
    label_of,
    label_of_all,
)

RULES = st.lists(
    st.builds(
        LabelRule,
        paths=st.lists(st.sampled_from(["a/**", "b/*", "**", "a/x"]), min_size=1, max_size=2).map(tuple),
        integrity=st.none() | st.sampled_from(Integrity),
        confidentiality=st.none() | st.sampled_from(Confidentiality),
    ),
    max_size=3,
)
PATHS = st.lists(st.sampled_from(["a/x", "a/y/z", "b/x", "c"]), max_size=6)


@given(PATHS, RULES)
def test_the_label_of_many_files_is_the_join_of_each(paths: list[str], rules: list[LabelRule]) -> None:
    assert label_of_all(paths, rules) == joined(label_of(path, rules) for path in paths)


def test_no_file_is_the_bottom_and_a_file_without_a_rule_is_the_repositorys() -> None:
    assert label_of_all([], ()) == Label()
    assert label_of_all(iter(["a"]), ()) == REPOSITORY
