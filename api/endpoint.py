"""What an endpoint is: a path, the parameters it takes, the reply it gives, and the function between them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.access import require_token
from api.contract import Reply
from api.parameters import NoParameters, Parameters, parse

Handler = Callable[[Request, Any], Awaitable[Response]]


class AnyText(PathConvertor):
    """A part of a path that may hold any character, "/" and line breaks among them, as a user_id may."""

    regex = "(?s:.*)"


register_url_convertor("any", AnyText())


@dataclass(frozen=True)
class Endpoint:
    """One row of the table in `routes`; its documentation is the handler's docstring."""

    path: str
    handler: Handler
    tag: str
    reply: type[Reply] | None = None  # None: it streams
    parameters: type[Parameters] = NoParameters
    reads: bool = True
    """Whether it needs another server, and may answer 503."""
    open: bool = False
    """Whether it is served without the token."""

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def streams(self) -> bool:
        return self.reply is None

    @property
    def faults(self) -> tuple[int, ...]:
        """Statuses beside 200, each with the same form of body."""
        return (*(() if self.open else (401,)), 414, 421, 422, 500, *((503,) if self.reads else ()))

    def route(self) -> Route:
        """How Starlette serves it."""

        async def serve(request: Request) -> Response:
            if not self.open:
                require_token(request)
            return await self.handler(request, parse(self.parameters, request))

        return Route(self.path.replace("{user_id}", "{user_id:any}"), serve, methods=["GET"], name=self.name)
