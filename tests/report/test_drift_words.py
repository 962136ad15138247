"""What the page of a watch says in a sentence: the verb goes by the number."""

from typing import Any

import pytest

from fl_inmetro.report.drift import sentence


def summary(clients: int, alarmed: int, *, fleet: bool = False) -> dict[str, Any]:
    alarms: list[dict[str, Any]] = [{"client_id": f"c{i}"} for i in range(alarmed)]
    alarms += [{"client_id": None}] if fleet else []
    days = ["2024-03-01", "2024-03-30"]
    return {"days": days, "clients": clients, "alarmed": alarmed, "alarms": alarms}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (summary(14, 1), "1 de 14 clientes mudou entre"),
        (summary(14, 2), "2 de 14 clientes mudaram entre"),
        (summary(14, 1, fleet=True), "1 de 14 clientes tem alarmes próprios"),
        (summary(14, 0, fleet=True), "0 de 14 clientes têm alarmes próprios"),
        (summary(1, 0), "1 cliente é como o modelo o conhece"),
        (summary(3, 0), "3 clientes são como o modelo os conhece"),
    ],
)
def test_the_verb_goes_by_the_number(found, said):
    assert said in sentence(found, "pt-BR")
