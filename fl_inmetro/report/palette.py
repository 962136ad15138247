"""Colours, dashes, markers and the plain layout of every figure: never colour alone.

Source of the colours: Okabe & Ito (2008), "Color Universal Design", the eight-colour set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fl_inmetro.i18n import Language

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"

Dash = Literal["solid", "dash", "dot", "dashdot", "longdash"]


@dataclass(frozen=True)
class Look:
    """How a kind of thing looks in every figure.

    Attributes:
        colour: One of the Okabe-Ito colours.
        dash: Line style.
        marker: Plotly marker symbol.
        pattern: Plotly fill pattern of bars; empty = plain.
    """

    colour: str
    dash: Dash
    marker: str
    pattern: str


_TRAININGS = {
    "federated": Look(BLUE, "solid", "circle", ""),
    "local": Look(ORANGE, "dash", "square", "/"),
    "clustered": Look(SKY, "longdash", "hexagon", "+"),
    "personalised": Look(PURPLE, "solid", "star", "\\"),
    "centralised": Look(GREEN, "dashdot", "diamond", "x"),
    "baseline": Look("#767676", "dot", "cross", "."),
}
_MODELS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)


def training_look(training: str) -> Look:
    """Return the look of a training; an unknown one is black, dotted."""
    return _TRAININGS.get(training, Look(BLACK, "dot", "x", "|"))


def model_colours(models: list[str]) -> dict[str, str]:
    """Give each model a colour, in the order in which they come."""
    return {m: _MODELS[i % len(_MODELS)] for i, m in enumerate(dict.fromkeys(models))}


def fill(colour: str, pattern: str) -> dict[str, Any]:
    """Return the fill of bars: the colour, with a white pattern on it where one is given."""
    hatch = {"shape": pattern, "bgcolor": colour, "fgcolor": "#FFFFFF", "size": 7, "solidity": 0.25}
    return {"color": colour, "line": {"width": 0}, **({"pattern": hatch} if pattern else {})}


def layout(lang: Language, height: int, **more: Any) -> dict[str, Any]:
    """Return the layout all figures share: white, thin grid, horizontal legend above, no motion."""
    axis = {
        "gridcolor": "#E2E2E2",
        "linecolor": "#8A8A8A",
        "zerolinecolor": "#8A8A8A",
        "ticks": "outside",
        "automargin": True,
        "exponentformat": "none",
    }
    return {
        "template": "none",
        "height": height,
        "autosize": True,
        "margin": {"l": 10, "r": 20, "t": 30, "b": 10},
        "font": {"family": "system-ui, sans-serif", "size": 14, "color": "#1A1A1A"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "separators": ",." if lang == "pt-BR" else ".,",
        "dragmode": False,
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        **more,
    }
