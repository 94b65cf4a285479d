"""The OpenAPI 3.1 document, made from the same table of endpoints and the same models that serve requests."""

import inspect
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import models_json_schema

from api.contract import Error
from api.endpoint import Endpoint
from api.parameters import Parameters, Table
from api.replies import AS_OF_HEADER, LAG_HEADER
from hotpath.events import ID_BYTES_MAX

VERSION = "1"
_SCHEMAS = "#/components/schemas/{model}"
_FAULTS = {
    401: "A token is set, and this request does not carry it.",
    414: "The path and the query are too long together.",
    421: "The Host header is not a name that this server answers to.",
    422: "A parameter is wrong or unknown; `error.parameter` names it.",
    500: "An unexpected failure; the API's log has the details.",
    503: "What this needs cannot be reached or is not complete now; `error.code` says what, try again.",
}
_USER_ID = {
    "name": "user_id",
    "in": "path",
    "required": True,
    "description": "percent-encoded; any characters, `/` among them",
    "schema": {"type": "string", "minLength": 1, "maxLength": ID_BYTES_MAX},
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "id of the last event that was seen: the first one sent is a later one",
    "schema": {"type": "string"},
}

_TABLE_HEADERS = {
    AS_OF_HEADER: {"schema": {"type": "string"}, "description": "of a CSV: `as_of` of the JSON"},
    LAG_HEADER: {
        "schema": {"type": "string"},
        "description": "of a CSV: `lag_events` of the JSON, unless null",
    },
}


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document, as `/openapi.json` serves it."""
    endpoints = list(endpoints)
    models = {endpoint.reply for endpoint in endpoints if endpoint.reply} | {Error}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=_SCHEMAS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hotpath read API",
            "version": VERSION,
            "description": "Live numbers from Redis, history and bookkeeping from Postgres, workers from their "
            "supervisor. Every live number comes with the moment up to which it is complete (`as_of`), its window, and "
            "how many messages are not in it yet. Events are placed by their own time, in steps of ten seconds. CSV "
            "cells that a spreadsheet would take for a formula begin with an apostrophe.",
        },
        "paths": {endpoint.path: {"get": _operation(endpoint)} for endpoint in endpoints},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Needed where a token is set."}
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    lines = inspect.cleandoc(endpoint.handler.__doc__ or "")
    summary, _, rest = lines.partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": " ".join(summary.split()),
        "responses": _responses(endpoint),
        "security": [{}] if endpoint.open else [{}, {"token": []}],
    }
    if rest:
        operation["description"] = rest
    parameters = _query(endpoint.parameters)
    if "{user_id}" in endpoint.path:
        parameters.insert(0, _USER_ID)
    if endpoint.streams:
        parameters.append(_LAST_EVENT_ID)
    if parameters:
        operation["parameters"] = parameters
    return operation


def _query(kind: type[Parameters]) -> list[dict[str, Any]]:
    shown = []
    schema = kind.model_json_schema(ref_template=_SCHEMAS)
    for name, of_field in schema.get("properties", {}).items():
        plain = {key: value for key, value in of_field.items() if key not in ("title", "description")}
        # Absent is not null: what may be left out is said by `required`.
        choices = [choice for choice in plain.pop("anyOf", []) if choice != {"type": "null"}]
        if plain.get("default", 0) is None:
            plain.pop("default")
        shown.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", []),
                "description": of_field.get("description", ""),
                "schema": plain | (choices[0] if choices else {}),
            }
        )
    return shown


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.streams:
        content = {"text/event-stream": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": {"$ref": _ref(endpoint.reply.__name__)}}}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    if issubclass(endpoint.parameters, Table):
        content["text/csv"] = {"schema": {"type": "string"}}
        responses["200"]["headers"] = _TABLE_HEADERS
    error = {"application/json": {"schema": {"$ref": _ref(Error.__name__)}}}
    for status in endpoint.faults:
        responses[str(status)] = {"description": _FAULTS[status], "content": error}
        if status == 503:
            seconds = {"schema": {"type": "string"}, "description": "seconds to wait before another try"}
            responses["503"]["headers"] = {"Retry-After": seconds}
    return responses


def _ref(name: str) -> str:
    return _SCHEMAS.format(model=name)
