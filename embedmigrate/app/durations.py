"""How long something will take, in words that promise no more than is known."""

_MINUTE = 60
_HOUR = 3600


def about(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"about {max(1, round(seconds))} s"
    if seconds < 2 * _HOUR:
        return f"about {round(seconds / _MINUTE)} min"
    return f"about {seconds / _HOUR:,.1f} h"
