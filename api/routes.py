"""The table of endpoints: what is served, checked and documented, all from these rows."""

from functools import cache
from pathlib import Path

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from api import contract, documentation, endpoints, history, openapi, parameters
from api.access import CONTENT_POLICY, require_token
from api.dashboard import Dashboard
from api.endpoint import Endpoint
from api.replies import JsonReply
from api.settings import ApiSettings

PROGRAM_FOLDER = Path(__file__).resolve().parent.parent

ENDPOINTS = (
    Endpoint("/api/v1/summary", endpoints.summary, "live", contract.Summary),
    Endpoint("/api/v1/active-users", endpoints.active_users, "live", contract.ActiveUsers),
    Endpoint("/api/v1/top-pages", endpoints.top_pages, "live", contract.TopPages, parameters.Limited),
    Endpoint("/api/v1/users", endpoints.top_users, "live", contract.TopUsers, parameters.LimitedUsers),
    Endpoint(
        "/api/v1/users/{user_id}/sessions",
        endpoints.user_sessions,
        "live",
        contract.Sessions,
        parameters.Table,
    ),
    Endpoint("/api/v1/stream", endpoints.stream, "live"),
    Endpoint("/api/v1/pipeline", endpoints.pipeline, "workers", contract.Pipeline, reads=False),
    Endpoint("/api/v1/history", history.history, "history", contract.History, parameters.HistoryRange),
    Endpoint("/api/v1/ledger", history.ledger, "history", contract.Ledger, parameters.Range),
    Endpoint(
        "/api/v1/quarantine", history.quarantine, "history", contract.Quarantine, parameters.QuarantineRows
    ),
    Endpoint("/healthz", endpoints.healthz, "health", contract.Health, reads=False, open=True),
    Endpoint("/readyz", endpoints.readyz, "health", contract.Health, open=True),
)


@cache
def openapi_body() -> bytes:
    """The OpenAPI document as JSON."""
    return orjson.dumps(openapi.document(ENDPOINTS))


async def _openapi(request: Request) -> Response:
    require_token(request)
    return JsonReply(openapi_body())


async def _docs(request: Request) -> Response:
    require_token(request)
    policy = CONTENT_POLICY.replace("style-src 'self'", f"style-src {documentation.STYLE_POLICY}")
    return HTMLResponse(
        documentation.page(orjson.loads(openapi_body())), headers={"Content-Security-Policy": policy}
    )


def routes(settings: ApiSettings) -> list[Route]:
    """All routes; the first that fits serves."""
    return [
        *(endpoint.route() for endpoint in ENDPOINTS),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
        Dashboard(PROGRAM_FOLDER / settings.api_page_folder).route(),
    ]
