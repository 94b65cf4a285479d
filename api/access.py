"""Who may read what: the token, the names it may be asked by, security headers, limits on what a request may be.

The token guards every endpoint that is not `open`; it is compared in constant time. The dashboard's files are not
guarded: they hold no numbers, and a browser cannot send a token for a page it opens.
"""

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Unauthorized, error_body
from api.replies import JsonReply
from api.settings import ApiSettings

TARGET_BYTES_MAX = 8_192
"""Path and query together; the longest user_id there is takes 384."""

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing from or to other hosts, no inline script; inline style attributes, which charts set."""

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def require_token(request: Request) -> None:
    """Raises Unauthorized unless the request carries the token, or none is set."""
    token = request.app.state.settings.api_token.get_secret_value()
    if not token:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # As bytes: compare_digest takes only ASCII strings. latin-1 is what headers are decoded by.
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), token.encode()):
        raise Unauthorized("a token is needed: send `Authorization: Bearer ...`")


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, for itself alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def asked_by_name(settings: ApiSettings, host: str) -> bool:
    """Whether a request with this Host header is to be answered.

    Without a token, whoever reaches the loopback address may read everything. A page on the internet does not, unless
    its name is made to resolve to that address (DNS rebinding); but then the browser sends that name.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if settings.api_hosts:
        return name in settings.api_hosts
    guarded = bool(settings.api_token.get_secret_value())
    return guarded or not is_loopback(settings.api_host) or is_loopback(name)


class Guard:
    """Middleware: refuses what is too long or for another host, adds the security headers to every reply."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._headers = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message["headers"]
                own = {name for name, _ in given}
                message["headers"] = [*given, *(pair for pair in self._headers if pair[0] not in own)]
            await send(message)

        length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if length > TARGET_BYTES_MAX:
            body = error_body("too_long", f"path and query may have {TARGET_BYTES_MAX} bytes together")
            await JsonReply(body, 414)(scope, receive, send_with_headers)
        elif not asked_by_name(self._settings, Headers(scope=scope).get("host", "")):
            body = error_body("unknown_host", "not a name of this server: see HOTPATH_API_HOSTS")
            await JsonReply(body, 421)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)
