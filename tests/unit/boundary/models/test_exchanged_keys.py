"""Keys that are exchanged for tokens, and where a provider's name may lead."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from vestibule.boundary.models.exchanged_keys import EARLY_SECONDS, ExchangedKeys
from vestibule.boundary.models.providers import Upstream, upstream_for
from vestibule.boundary.models.reach import Reach
from vestibule.config.parts import KeySource
from vestibule.config.providers import Provider
from vestibule.core.errors import DependencyDown

WATSONX = Provider(
    api="watsonx",
    base_url="https://watsonx.example.com",
    token_url="https://iam.example.com/identity/token",
    project="p-1",
    key=KeySource(env="WATSONX_KEY"),
)
VERTEX = Provider(
    api="vertex",
    base_url="https://vertex.example.com",
    token_url="https://oauth.example.com/token",
    project="p-1",
    location="eu",
    key=KeySource(env="VERTEX_KEY"),
)


class Exchange:
    """Plays the token endpoint."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, list[str]]]] = []

    async def __call__(self, provider: str, url: str, form: bytes) -> bytes:
        await asyncio.sleep(0)
        self.asked.append((url, parse_qs(form.decode())))
        return self.answers.pop(0)


async def recorded(_: str) -> Callable[[bool], None]:
    return lambda _: None


def upstream(config: Provider, key: str) -> Upstream:
    return Upstream("p", config.api, config.base_url, "m", lambda: key, config=config, speaks=config.formats)


def token(name: str, lasts: int = 3600) -> bytes:
    return json.dumps({"access_token": name, "expires_in": lasts}).encode()


def test_a_token_is_asked_for_once_and_again_before_it_ends() -> None:
    now = 1000.0
    played = Exchange(token("first"), token("second"))
    keys = ExchangedKeys(played, recorded, lambda: now)
    up = upstream(WATSONX, "api-key")

    async def run() -> None:
        nonlocal now
        assert await asyncio.gather(*(keys.secret(up) for _ in range(20))) == ["first"] * 20
        now += 3600 - EARLY_SECONDS - 1
        assert await keys.secret(up) == "first"
        now += 2
        assert await keys.secret(up) == "second"

    asyncio.run(run())
    url, form = played.asked[0]
    assert url == "https://iam.example.com/identity/token"
    assert form == {"grant_type": ["urn:ibm:params:oauth:grant-type:apikey"], "apikey": ["api-key"]}
    assert len(played.asked) == 2


def test_a_service_account_signs_for_its_token() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = json.dumps({"client_email": "ci@example.com", "private_key": pem.decode()})
    played = Exchange(token("t"))
    keys = ExchangedKeys(played, recorded, lambda: 1000.0)
    assert asyncio.run(keys.secret(upstream(VERTEX, account))) == "t"
    assertion = played.asked[0][1]["assertion"][0]
    head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in assertion.split("."))
    assert json.loads(head)["alg"] == "RS256"
    said = json.loads(claims)
    assert (said["iss"], said["aud"], said["exp"]) == ("ci@example.com", "https://oauth.example.com/token", 4600)
    signed = assertion.rpartition(".")[0].encode()
    private.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize(
    ("config", "key", "answer"),
    [
        (WATSONX, "the-secret", b"<html>"),
        (WATSONX, "the-secret", b'{"error": "x"}'),
        (WATSONX, "the-secret", b'{"access_token": "t\xc3\xa4", "expires_in": 1}'),
        (VERTEX, "no json", b"{}"),
        (VERTEX, '{"client_email": "a@example.com", "private_key": "no key"}', b"{}"),
    ],
    ids=["no json", "no token", "no ascii", "no account", "no private key"],
)
def test_an_exchange_that_fails_refuses_before_anything_is_sent(config: Provider, key: str, answer: bytes) -> None:
    keys = ExchangedKeys(Exchange(answer), recorded)
    with pytest.raises(DependencyDown) as caught:
        asyncio.run(keys.secret(upstream(config, key)))
    assert caught.value.name == "provider_key"
    assert key not in caught.value.refusal.sentence()


@pytest.mark.parametrize(
    "url",
    ["http://localhost.example.com/t", "http://127.0.0.1.example.com/t", "http://127.0.0.1@example.com/t", "ftp://x/t"],
)
def test_a_service_accounts_own_address_is_reached_without_tls_on_this_machine_only(url: str) -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": "ci@example.com", "private_key": pem.decode(), "token_uri": url}
    played = Exchange(token("t"))
    keys = ExchangedKeys(played, recorded)
    with pytest.raises(DependencyDown):
        asyncio.run(keys.secret(upstream(VERTEX.model_copy(update={"token_url": ""}), json.dumps(account))))
    assert played.asked == []


def test_a_providers_key_that_needs_no_exchange_is_read_each_time() -> None:
    keys = ExchangedKeys(Exchange(), recorded)
    plain = Upstream("p", "anthropic", "https://models.example.com", "m", lambda: "now")
    assert asyncio.run(keys.secret(plain)) == "now"


def looked_up(reach: Reach, host: str) -> list[tuple[str, int]]:
    return asyncio.run(reach.look_up(host, 443))


def test_a_name_leads_inside_only_where_the_operator_says_so() -> None:
    assert looked_up(Reach(), "localhost")[0][1] == 443  # its very spelling says so
    inner = Provider(api="openai", base_url="https://localhost.localdomain:8000/v1", private=True)
    up = Upstream("p", "openai", inner.base_url, "m", lambda: "", config=inner)
    reach = Reach((up,))
    assert "localhost.localdomain" in reach.private
    pinned = Provider(api="openai", base_url="https://models.example.com/v1", address="127.0.0.1:8443")
    reach = Reach((Upstream("p", "openai", pinned.base_url, "m", lambda: "", config=pinned),))
    assert looked_up(reach, "models.example.com") == [("127.0.0.1", 8443)]


def test_a_public_name_that_leads_inside_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rebound(*_: object, **__: object) -> list[object]:
        return [(None, None, None, "", (address, 443)) for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254")]

    async def run() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", rebound, raising=False)
        with pytest.raises(OSError, match="no address"):
            await Reach().look_up("models.example.com", 443)

    policy = asyncio.DefaultEventLoopPolicy().new_event_loop()
    policy.run_until_complete(run())
    policy.close()


def test_a_service_accounts_file_goes_from_the_operators_configuration_to_a_token(tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "account.json"
    file.write_text(json.dumps({"client_email": "a@example.com", "private_key": private.decode()}, indent=1))
    file.chmod(0o600)
    config = VERTEX.model_copy(update={"key": KeySource(file=str(file))})
    exchange = Exchange(b'{"access_token": "t-1"}')
    keys = ExchangedKeys(exchange, recorded)
    assert asyncio.run(keys.secret(upstream_for({"google": config}, "google", "gemini-2.5-pro"))) == "t-1"
    assert exchange.asked[0][0] == "https://oauth.example.com/token"


def test_a_key_leaves_only_when_its_event_is_durable_and_the_event_says_how_it_ended() -> None:
    steps: list[str] = []

    class Played(Exchange):
        async def __call__(self, provider: str, url: str, form: bytes) -> bytes:
            steps.append("left")
            return await super().__call__(provider, url, form)

    async def record(provider: str) -> Callable[[bool], None]:
        await asyncio.sleep(0)
        steps.append(f"durable {provider}")
        return lambda ok: steps.append(f"ended {ok}")

    async def broken(_: str) -> Callable[[bool], None]:
        raise DependencyDown("audit", "The log takes no entry.")

    up = upstream(WATSONX, "api-key")
    asyncio.run(ExchangedKeys(Played(token("t")), record).secret(up))
    assert steps == ["durable p", "left", "ended True"]
    steps.clear()
    with pytest.raises(DependencyDown):
        asyncio.run(ExchangedKeys(Played(b"<html>"), record).secret(up))
    assert steps == ["durable p", "left", "ended False"]
    steps.clear()
    with pytest.raises(DependencyDown, match="log"):
        asyncio.run(ExchangedKeys(Played(token("t")), broken).secret(up))
    assert steps == []
