"""Formats of credentials, as data: what issuers publish about the shape of their tokens.

Each format has a keyword that must stand in the text before its expression is tried, and how many bits of entropy
per character its variable part shows at least, so that placeholders pass.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of credential. Group 1 of `pattern`, else the whole match, is the variable part."""

    name: str
    keywords: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    entropy: float = 3.0


def _f(name: str, keywords: str, pattern: str, entropy: float = 3.0) -> Format:
    words = tuple(word.encode() for word in keywords.split())
    return Format(name, words, re.compile(pattern.encode()), entropy)


_A = r"(?<![A-Za-z0-9_])"  # a token starts here
_Z = r"(?![A-Za-z0-9_])"  # and ends here

FORMATS: tuple[Format, ...] = (
    _f("AWS access key", "AKIA ASIA ABIA ACCA", _A + r"(?:AKIA|ASIA|ABIA|ACCA)([A-Z2-7]{16})" + _Z),
    _f(
        "AWS secret key",
        "aws AWS secret SECRET Secret",
        r"(?i:aws.{0,20}|secret_?access_?key|secretaccesskey)['\"]?\s{0,3}[:=]{1,2}>?\s{0,3}['\"]?"
        r"((?=[A-Za-z0-9/+]*[0-9])(?=[A-Za-z0-9/+]*[A-Z])[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        4.0,
    ),
    _f("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", _A + r"gh[pousr]_([A-Za-z0-9]{36,255})" + _Z),
    _f("GitHub fine-grained token", "github_pat_", _A + r"github_pat_([A-Za-z0-9]{22}_[A-Za-z0-9]{59})" + _Z),
    _f(
        "GitLab token",
        "glpat- glptt- gldt- glrt- glcbt- glsoat-",
        r"gl(?:pat|ptt|dt|rt|cbt|soat)-([A-Za-z0-9_=-]{20,60})",
    ),
    _f(
        "Slack token",
        "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe xapp-",
        r"(?:xox[abeprs](?:\.xox[bp])?-|xapp-)([0-9A-Za-z-]{20,250})",
    ),
    _f("Slack webhook", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{30,90})"),
    _f("Discord token", "discord Discord DISCORD", r"(?i:discord).{0,30}?([MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40})"),
    _f(
        "Stripe key",
        "sk_live_ rk_live_ sk_test_ rk_test_ sk_prod_ whsec_",
        _A + r"(?:[sr]k_(?:live|test|prod)_|whsec_)([A-Za-z0-9]{16,110})",
    ),
    _f("Google API key", "AIza", _A + r"AIza([A-Za-z0-9_-]{35})(?![A-Za-z0-9_-])"),
    _f("Google OAuth secret", "GOCSPX-", _A + r"GOCSPX-([A-Za-z0-9_-]{28})"),
    _f("Google OAuth token", "ya29.", _A + r"ya29\.([A-Za-z0-9_-]{40,})"),
    _f("npm token", "npm_", _A + r"npm_([A-Za-z0-9]{36})" + _Z),
    _f("PyPI token", "pypi-AgE", _A + r"pypi-AgE([A-Za-z0-9_-]{50,})"),
    _f("RubyGems key", "rubygems_", _A + r"rubygems_([a-f0-9]{48})" + _Z),
    _f("Anthropic key", "sk-ant-", _A + r"sk-ant-(?:[a-z0-9]{2,8}-)?([A-Za-z0-9_-]{24,130})"),
    _f("OpenAI key", "sk-", _A + r"sk-(?!ant-)(?:proj-|svcacct-|admin-|or-v1-)?([A-Za-z0-9_-]{32,200})" + _Z, 3.6),
    _f("Hugging Face token", "hf_ api_org_", _A + r"(?:hf_|api_org_)([A-Za-z0-9]{34})" + _Z),
    _f("SendGrid key", "SG.", _A + r"SG\.([A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64})"),
    _f("Twilio key", "SK", _A + r"SK([0-9a-f]{32})" + _Z),
    _f("Mailgun key", "key-", _A + r"key-([0-9a-f]{32})" + _Z),
    _f("DigitalOcean token", "dop_v1_ doo_v1_ dor_v1_", _A + r"do[por]_v1_([a-f0-9]{64})" + _Z),
    _f("Databricks token", "dapi", _A + r"dapi([a-f0-9]{32})(?:-[0-9])?" + _Z),
    _f("Vault token", "hvs. hvb. hvr.", _A + r"hv[sbr]\.([A-Za-z0-9_-]{24,300})"),
    _f("Terraform token", ".atlasv1.", r"([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70})"),
    _f("Linear, Notion or Figma token", "lin_api_ ntn_ figd_", _A + r"(?:lin_api_|ntn_|figd_)([A-Za-z0-9_-]{36,60})"),
    _f("Telegram bot token", ":AA", r"(?<![0-9])[0-9]{8,10}:(AA[A-Za-z0-9_-]{33})(?![A-Za-z0-9_-])"),
    _f("Shopify token", "shpat_ shpss_ shpca_ shppa_", _A + r"shp(?:at|ss|ca|pa)_([a-fA-F0-9]{32})" + _Z),
    _f("Docker token", "dckr_pat_ dckr_oat_", _A + r"dckr_[po]at_([A-Za-z0-9_-]{27,40})"),
    _f("Grafana token", "glsa_ glc_", _A + r"(?:glsa_|glc_)([A-Za-z0-9+/=_]{32,})"),
    _f("New Relic key", "NRAK-", _A + r"NRAK-([A-Z0-9]{27})"),
    _f(
        "Azure storage key",
        "AccountKey SharedAccessKey",
        r"(?:AccountKey|SharedAccessKey)\s{0,3}=\s{0,3}([A-Za-z0-9+/]{43,86}={0,2})",
        4.0,
    ),
    _f(
        "Azure client secret",
        "8Q~ 7Q~",
        r"(?<![A-Za-z0-9_~.-])([A-Za-z0-9_~.]{3}[78]Q~[A-Za-z0-9_~.-]{31,34})(?![A-Za-z0-9_~.-])",
    ),
    _f("age key", "AGE-SECRET-KEY-", r"AGE-SECRET-KEY-1([QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})"),
    _f("JSON Web Token", "eyJ", _A + r"(eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{16,})", 3.5),
    _f(
        "password in a URL",
        "://",
        r"(?i:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|ftp|https?|ssh)://"
        r"[^\s:/@'\"<>{}$]{1,64}:([^\s:/@'\"<>{}$]{8,128})@[A-Za-z0-9.-]{1,253}",
        3.0,
    ),
)
"""Denied wherever they stand, encoded or not."""

PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]{2,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,64}?[A-Za-z0-9+/=\\\s\"',+:-]{64}"
)
"""RFC 7468 section 10, OpenSSH and OpenPGP: the header with at least a line of key material behind it."""
PRIVATE_KEY_HEADER = b"PRIVATE KEY"

ASSIGNED = re.compile(
    rb"(?i)(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|apikey|access[_-]?key|client[_-]?secret|credentials?)"
    rb"[a-z0-9_]{0,20}['\"]?\s{0,3}(?::=|=>|[:=])\s{0,3}['\"]([A-Za-z0-9_+/=.~!@#$%^&*-]{20,200})['\"]"
)
"""Something secret by name, with a random-looking literal: held."""

_PLACEHOLDER = re.compile(
    rb"(?i)example|placeholder|changeme|change[_-]me|replace|redacted|dummy|sample|your[_-]?|insert|<[^>]*>|\.\.\.|"
    rb"xxxx|(?:0123456789|1234567890|abcdefghij|deadbeef)|(.)\1{7,}"
)


def bits_per_character(data: bytes) -> float:
    """Shannon entropy of the byte distribution, in bits."""
    total = len(data)
    return -sum(n / total * math.log2(n / total) for n in Counter(data).values()) if total else 0.0


def is_placeholder(variable: bytes) -> bool:
    """Whether the variable part is plainly made up: a word for it, a long repetition or a counted sequence."""
    return bool(_PLACEHOLDER.search(variable))
