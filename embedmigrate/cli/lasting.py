"""Standard streams that outlast their readers: `| head -1` or a full disk must not end a run."""

import os
import sys
from io import TextIOWrapper


class _Lasting(TextIOWrapper):
    """Goes on writing into nothing where nobody takes what it says any more."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        # Not only this object: what is still in its buffer is written when the process ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlast() -> None:
    """Make stdout and stderr lasting, and able to show any text in the encoding they have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif type(stream) is TextIOWrapper:
            encoding = stream.encoding
            lasting = _Lasting(
                stream.detach(), encoding=encoding, errors="replace", line_buffering=True
            )
            setattr(sys, name, lasting)
