"""Fills the HTML templates of this folder."""

import base64
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from components.evaluation.report.tables import Rate


def render(template: str, **values: Any) -> str:
    """Returns the page that a template makes of values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, interval=_interval, number=number)
    return environment.get_template(template).render(**values)


def base64_text(content: bytes) -> str:
    """Returns the content of a file as a page holds it."""
    return base64.b64encode(content).decode()


def number(value: float, digits: int = 4) -> str:
    """Returns a number as a page shows it."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def _percent(rate: Rate | float | None, digits: int = 1) -> str:
    value = rate.value if isinstance(rate, Rate) else rate
    return "–" if value is None or np.isnan(value) else f"{100 * value:.{digits}f} %"


def _interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"
