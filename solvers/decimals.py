# SPDX-License-Identifier: Apache-2.0
"""Exact conversion between decimals and scaled integers, and exact JSON output.

No function here rounds: ``Decimal`` arithmetic is avoided (its context rounds to 28 digits) and
digits are moved as integers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TypeAlias

MAX_EXPONENT = 100
"""A decimal may reach at most this many places to either side of the decimal point."""

_TOO_BIG: int = 10**MAX_EXPONENT

Number: TypeAlias = int | Decimal
"""What the user may write for a value: never a float, which would be rounded already."""


def places(value: Number) -> int:
    """Digits after the decimal point that ``value`` needs (0 for integers).

    >>> places(Decimal("0.120")), places(Decimal("1E+3")), places(7)
    (2, 0, 0)
    """
    if isinstance(value, int):
        return 0
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int), "only finite decimals get here"
    for digit in reversed(digits):
        if exponent >= 0 or digit:
            break
        exponent += 1
    return max(0, -exponent) if any(digits) else 0


def in_range(value: Number) -> bool:
    """Whether ``value`` is finite and within ``MAX_EXPONENT`` places of the decimal point."""
    if isinstance(value, int):
        return bool(abs(value) < _TOO_BIG)
    if not value.is_finite():
        return False
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    if value.is_zero():
        return True
    return exponent >= -MAX_EXPONENT and value.adjusted() < MAX_EXPONENT


def power(digits: int) -> int:
    """10**digits for digits >= 0."""
    return int(10**digits)


def scale_down(value: Number, digits: int) -> int:
    """floor(value * 10**digits), exactly."""
    if isinstance(value, int):
        return value * power(digits)
    sign, figures, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    whole = int("".join(map(str, figures)))
    if sign:
        whole = -whole
    shift = exponent + digits
    return whole * power(shift) if shift >= 0 else whole // power(-shift)


def scale_up(value: Number, digits: int) -> int:
    """ceil(value * 10**digits), exactly."""
    if isinstance(value, int):
        return value * power(digits)
    return -scale_down(value.copy_negate(), digits)


def to_decimal(scaled: int, digits: int) -> Decimal:
    """scaled / 10**digits as a decimal without superfluous zeros, exactly.

    >>> to_decimal(41000, 5), to_decimal(-1200, 1)
    (Decimal('0.41'), Decimal('-120'))
    """
    scaled = int(scaled)
    while digits > 0 and scaled % 10 == 0:
        scaled //= 10
        digits -= 1
    return Decimal((int(scaled < 0), tuple(map(int, str(abs(scaled)))), -digits))


def add(a: Number, b: Number) -> Decimal:
    """a + b, exactly.

    >>> add(Decimal("0.1"), -1)
    Decimal('-0.9')
    """
    digits = max(places(a), places(b))
    return to_decimal(scale_down(a, digits) + scale_down(b, digits), digits)


def plain(value: Number) -> str:
    """``value`` written without an exponent, as JSON takes it.

    >>> plain(Decimal("1E+3")), plain(Decimal("0.10"))
    ('1000', '0.1')
    """
    if isinstance(value, int):
        return str(value)
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def common_scale(values: Iterable[Number]) -> int:
    """The least number of digits after the point that writes every value exactly."""
    return max(map(places, values), default=0)


def dump_json(value: object, indent: int = 2) -> str:
    """JSON text of nested dicts, lists and scalars; decimals become plain exact numbers.

    Containers of scalars stay on one line. Raises TypeError for other types and for NaN.
    """
    return "".join(_encode(value, indent, 0))


def _encode(value: object, indent: int, level: int) -> Iterator[str]:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise TypeError(f"{value} has no JSON form")
        yield plain(value)
    elif isinstance(value, Mapping):
        opening, closing = "{", "}"
        parts = [f"{json.dumps(str(key), ensure_ascii=False)}: " for key in value]
        yield from _container(parts, list(value.values()), opening + closing, indent, level)
    elif isinstance(value, list | tuple):
        yield from _container([""] * len(value), list(value), "[]", indent, level)
    else:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)


def _container(
    heads: list[str], values: list[object], brackets: str, indent: int, level: int
) -> Iterator[str]:
    flat = level > 0 and not any(isinstance(value, Mapping | list | tuple) for value in values)
    if flat or not values:
        body = ", ".join(
            head + "".join(_encode(value, indent, level + 1))
            for head, value in zip(heads, values)
        )
        yield brackets[0] + body + brackets[1]
        return
    yield brackets[0]
    for position, (head, value) in enumerate(zip(heads, values)):
        yield ("," if position else "") + "\n" + " " * (indent * (level + 1)) + head
        yield from _encode(value, indent, level + 1)
    yield "\n" + " " * (indent * level) + brackets[1]
