"""What the API answers when it does not do what was asked: a status, a code and a sentence."""

from collections.abc import Mapping

from embedmigrate.errors import EmbedMigrateError, Exit
from embedmigrate.secrets import redact

_STATUS_OF_CODE = {"row_not_found": 404, "job_unknown": 404, "report_missing": 404}
_STATUS_OF_CODE |= {"key_invalid": 404}
_STATUS = {
    Exit.BUDGET: 422,
    Exit.PROVIDER: 502,
    Exit.TEMPORARY: 503,
    Exit.LOCKED: 409,
}
"""Of an error of the package, by its exit code; the rest is the server's own trouble: 500."""


class Refusal(Exception):  # noqa: N818  a request is refused; nothing has gone wrong
    """One answer of the kind `{"success":false,"error":{"code","message"}}`.

    Args:
        status: HTTP status.
        code: A stable name, as in docs/reference/errors.md.
        message: One sentence for a person.
        headers: Further headers.
        more: Further keys beside `success` and `error`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    @property
    def body(self) -> dict[str, object]:
        said = {"code": self.code, "message": redact(self.message)}
        return {"success": False, "error": said, **self.more}


def refusal(error: EmbedMigrateError) -> Refusal:
    """An error of the package as an answer; its facts and hint are for who sits at the machine."""
    status = _STATUS_OF_CODE.get(error.code) or _STATUS.get(error.exit_code, 500)
    return Refusal(status, error.code, error.message)
