"""The bodies of the requests: known fields only; no SQL, no address, no key, no path."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

_Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


def _whole(given: Any) -> Any:
    """1.0 is a whole number: JSON knows no other kind."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


_Rows = Annotated[int, Field(ge=1, le=10**12), BeforeValidator(_whole)]
_Batch = Annotated[int, Field(ge=1, le=4096), BeforeValidator(_whole)]
_Requests = Annotated[int, Field(ge=1, le=256), BeforeValidator(_whole)]
_RunId = Annotated[str, Field(pattern=r"^([0-9a-f]{6}|last)$")]


class Body(BaseModel):
    """Strict: a number is no text, a text is no number, and what is not known is refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, extra="forbid", strict=True
    )


class RunOptions(Body):
    batch_size: _Batch | None = Field(default=None, description="Rows a request.")
    delay_between_batches: float | None = Field(
        default=None,
        ge=0,
        le=3_600_000,
        description="Milliseconds that a worker waits after each batch.",
    )
    concurrency: _Requests | Literal["auto"] | None = None
    max_cost: float | None = Field(default=None, gt=0, le=1e9, description="USD at most.")
    rpm: float | None = Field(default=None, gt=0, le=1e9, description="Requests a minute at most.")
    tpm: float | None = Field(default=None, gt=0, le=1e12, description="Tokens a minute at most.")
    max_duration: float | None = Field(default=None, gt=0, le=1e9, description="Seconds at most.")

    def settings(self) -> dict[str, Any]:
        """As keys of the configuration file."""
        found = {
            "batch_size": self.batch_size,
            "delay": self.delay_between_batches,
            "concurrency": self.concurrency,
            "max_cost": self.max_cost,
            "rpm": self.rpm,
            "tpm": self.tpm,
            "max_duration": self.max_duration,
        }
        return {key: value for key, value in found.items() if value is not None}


class GenerateAll(RunOptions):
    skip_existing: bool | None = Field(
        default=None, description="False embeds every row again, not only those without a vector."
    )
    resume_from: _Text | None = Field(default=None, description="A key, or `last`.")
    limit: _Rows | None = Field(default=None, description="Rows at most.")
    on_too_long: Literal["fail", "truncate", "skip"] | None = None
    retry_failed: _RunId | None = Field(
        default=None, description="Only the rows that failed in this run, or `last`."
    )

    def settings(self) -> dict[str, Any]:
        found = {
            "force": True if self.skip_existing is False else None,
            "resume_from": self.resume_from,
            "limit": self.limit,
            "on_too_long": self.on_too_long,
            "retry_failed": self.retry_failed,
        }
        return super().settings() | {k: v for k, v in found.items() if v is not None}


class RetryFailed(RunOptions):
    run_id: _RunId = Field(default="last", description="Whose failed rows are tried again.")

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"retry_failed": self.run_id}


class GenerateOne(Body):
    resume_id: _Text = Field(description="The row's key; of several columns: a JSON list as text.")


class Stop(Body):
    now: bool = Field(default=False, description="Abort what is in flight; its rows stay pending.")
