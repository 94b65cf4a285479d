"""Parameters of the endpoints: the declarations that validate them are those that the OpenAPI document shows.

Numbers are ASCII digits and nothing else, each parameter is given once, and one that an endpoint does not know is
refused: a misspelt `limt=100` must not look like an answer to what was meant.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from api.contract import RefusedClassName
from api.errors import InvalidParameter
from hotpath.events import ID_BYTES_MAX, YEAR_MAX, YEAR_MIN

LIMIT_MAX = 100
ROWS_MAX = 500
TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]\d{2}:\d{2})$"
CURSOR_PATTERN = r"^[A-Za-z0-9_-]{1,100}$"
_TIME = re.compile(TIME_PATTERN.replace(r"\d", "[0-9]"))


def _whole(least: int, greatest: int, multiple: int = 1) -> Any:
    """The type of a whole number in a range."""

    def check(given: object) -> object:
        # No int() on what is not plainly digits: it takes "１", " 5", "1_0", and as many digits as there are.
        if isinstance(given, str):
            plain = given.isascii() and given.isdigit() and len(given) <= len(str(greatest))
            given = int(given) if plain else None
        if given is None or not least <= given <= greatest or given % multiple:
            of = f", a multiple of {multiple}" if multiple > 1 else ""
            raise PydanticCustomError("whole", f"must be one whole number from {least} to {greatest}{of}")
        return given

    schema = {"type": "integer", "minimum": least, "maximum": greatest}
    if multiple > 1:
        schema["multipleOf"] = multiple
    return Annotated[int, BeforeValidator(check), WithJsonSchema(schema)]


def _time(given: object) -> object:
    if isinstance(given, str):
        try:
            # 24:00:00 and second 60 are no times here; RFC 3339 allows a small t and z.
            moment = datetime.fromisoformat(given.upper()) if _TIME.match(given) else None
            given = moment.astimezone(UTC) if moment else None
        except (ValueError, OverflowError):
            given = None
    if given is None or not YEAR_MIN <= given.year <= YEAR_MAX:
        raise PydanticCustomError(
            "time", f"must be RFC 3339, YYYY-MM-DDTHH:MM:SSZ, in the years {YEAR_MIN} to {YEAR_MAX}"
        )
    return given


Limit = _whole(1, LIMIT_MAX)
Rows = _whole(1, ROWS_MAX)
StepSeconds = _whole(60, 86_400, 60)
Moment = Annotated[
    datetime,
    BeforeValidator(_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2024-03-15T14:30:00Z"]}),
]
Format = Literal["json", "csv"]


class Parameters(BaseModel):
    """Parameters of one endpoint; those of the query unless they are in its path."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class NoParameters(Parameters):
    pass


class Table(Parameters):
    format: Format = Field("json", description="csv: the same as a table, for spreadsheets")


class Limited(Table):
    limit: Limit = Field(5, description="how many at most")


class LimitedUsers(Table):
    limit: Limit = Field(10, description="how many at most")


class Range(Table):
    since: Moment | None = Field(None, alias="from", description="begin; rounded down to a step")
    until: Moment | None = Field(None, alias="to", description="end, now unless told; rounded up to a step")


class HistoryRange(Range):
    step: StepSeconds | None = Field(
        None, description="seconds of a step, whole minutes; chosen by the range unless told"
    )


class QuarantineRows(Table):
    event_class: RefusedClassName | None = Field(None, alias="class", description="only this class")
    limit: Rows = Field(50, description="how many at most")
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = Field(
        None, description="`next_cursor` of an earlier reply: continue behind its last row"
    )


AnyParameters = TypeVar("AnyParameters", bound=Parameters)


def parse(kind: type[AnyParameters], request: Request) -> AnyParameters:
    """The parameters of a request. Raises InvalidParameter, which names the first one at fault."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise InvalidParameter(name[:ID_BYTES_MAX], "is given more than once")
        given[name] = value
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        name = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            raise InvalidParameter(name[:ID_BYTES_MAX], f"is not known here; {_known(kind)}") from None
        raise InvalidParameter(name, fault["msg"]) from None


def _known(kind: type[Parameters]) -> str:
    names = [field.alias or name for name, field in kind.model_fields.items()]
    return f"there are {', '.join(names)}" if names else "there are no parameters"


def user_id(request: Request) -> str:
    """The user in the path. Raises InvalidParameter."""
    # Starlette replaces bad UTF-8 by U+FFFD, which would ask for another user.
    raw = request.path_params["user_id"]
    if "\ufffd" in raw and b"%ef%bf%bd" not in request.scope.get("raw_path", b"").lower():
        raise InvalidParameter("user_id", "must be UTF-8, percent-encoded")
    if not raw or len(raw.encode()) > ID_BYTES_MAX:
        raise InvalidParameter("user_id", f"must have 1 to {ID_BYTES_MAX} UTF-8 bytes")
    return raw
