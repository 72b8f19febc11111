from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from vestibule.identity.people import HOW, current_person, person_of


def test_a_person_is_the_user_of_the_process() -> None:
    assert current_person() == person_of(os.getuid())
    assert current_person().id == f"local:{pwd.getpwuid(os.getuid()).pw_name}"
    assert current_person().how == HOW
    assert current_person().groups == ()


@pytest.mark.parametrize("name", ["USER", "LOGNAME", "SUDO_USER", "USERNAME", "HOME"])
def test_no_environment_variable_makes_another_person(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = current_person()
    monkeypatch.setenv(name, "mallory")
    assert current_person() == before


def _names(name: str) -> Callable[[int], SimpleNamespace]:
    return lambda uid: SimpleNamespace(pw_name=name)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(uid: int) -> SimpleNamespace:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", missing)
    assert person_of(1234).id == "local:uid-1234"


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "-x", "group:admins", "a" * 65, "uid-1"])
def test_a_name_that_could_be_read_as_another_is_a_number(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(pwd, "getpwuid", _names(name))
    assert person_of(7).id == "local:uid-7"
