"""What was measured, round by round, and what is made of it."""

import math
from statistics import median


def percentile(ordered, part):
    """The value below which this part of the sorted values lies; 0 of none."""
    return ordered[max(math.ceil(len(ordered) * part), 1) - 1] if ordered else 0


def short(value):
    """A number as people read it, three digits that count: `12,345`, `123`, `1.23`, `0.0123`."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    after = max(min(2 - math.floor(math.log10(abs(value))), 6), 0)
    text = f"{value:.{after}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def spread(values):
    """`1.23 (1.2-1.31)`: the median and the ends; the median alone where they are one."""
    least, most = min(values), max(values)
    return short(median(values)) + (f" ({short(least)}-{short(most)})" if least < most else "")


class Book:
    def __init__(self):
        self._values, self._rows = {}, {}

    def note(self, measure, row, figures):
        rows = self._rows.setdefault(measure, [])
        if row not in rows:
            rows.append(row)
        for column, value in figures.items():
            self._values.setdefault((measure, row, column), []).append(value)

    def rows(self, measure):
        return self._rows.get(measure, [])

    def rounds(self, measure, row, column):
        """The values, round by round; none where it was not measured."""
        return self._values.get((measure, row, column), [])
