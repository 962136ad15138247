"""Time zones as settings."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator


def known_zone(value: str) -> str:
    """Return `value` if it names a time zone.

    Raises:
        ValueError: It does not.
    """
    try:
        ZoneInfo(value)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError on some systems
        raise ValueError(_zone_hint(value)) from error
    except KeyError as error:
        raise ValueError(_zone_hint(value)) from error
    return value


def _zone_hint(value: str) -> str:
    return (
        f"`{value}` is not a time zone; use an IANA name such as America/Sao_Paulo, UTC, "
        "or a fixed offset such as Etc/GMT+3 (three hours behind UTC)"
    )


#: A time zone by its IANA name, or a fixed offset.
Zone = Annotated[str, AfterValidator(known_zone)]
