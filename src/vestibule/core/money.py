"""Money is an integer number of nano-USD (10⁻⁹ USD), never a float."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

NANO = 1_000_000_000


def parse_usd(text: str) -> int:
    """Nano-USD of a decimal written as text, such as `"2.50"`.

    Raises:
        ValueError: not a plain non-negative decimal, or finer than a nano-USD.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no amount of US dollars; write a number such as 2.50") from None
    if not value.is_finite() or value < 0:
        raise ValueError(f"{text!r} is no amount of US dollars; write a number such as 2.50")
    nano = value * NANO
    if nano != nano.to_integral_value():
        raise ValueError(f"{text!r} is finer than a nano-dollar (9 decimal places)")
    if nano > 10**18:
        raise ValueError(f"{text!r} is beyond a billion dollars")
    return int(nano)


def format_usd(nano: int) -> str:
    """`$0.0123`: at least two decimals, trailing zeros cut, for people."""
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole}.{decimals}"


def plain_usd(nano: int) -> str:
    """`0.0123`: the exact decimal without a currency sign, for machines. `0` for nothing."""
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO)
    decimals = f"{rest:09d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
