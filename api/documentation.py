"""The page `/docs`: the OpenAPI document as HTML, for reading. No script, nothing from other hosts."""

import base64
import hashlib
from html import escape
from typing import Any

import orjson

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
section { border-top: 1px solid var(--line); padding: .5rem 0 1rem; }
h2 { font-size: 1.1rem; } h3 { font-size: 1rem; margin-bottom: .25rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; }
pre { background: #8881; padding: .75rem; overflow-x: auto; }
td:first-child { white-space: nowrap; } a { color: inherit; }
"""
STYLE_POLICY = "'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'"
"""What allows exactly this style sheet in a content policy."""


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    info, schemas = document["info"], document["components"]["schemas"]
    operations = [(path, item["get"]) for path, item in document["paths"].items()]
    contents = "".join(
        f'<li><a href="#{escape(operation["operationId"])}"><code>{escape(path)}</code></a> '
        f"{_prose(operation['summary'])}</li>"
        for path, operation in operations
    )
    sections = "".join(_operation(path, operation, schemas) for path, operation in operations)
    shapes = "".join(_schema(name, schema) for name, schema in schemas.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(info['title'])}</h1><p>{_prose(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>'
        f'<nav aria-label="Endpoints"><ul>{contents}</ul></nav>{sections}{_faults(operations)}'
        f"<section><h2>Shapes</h2>{shapes}</section></main></body></html>"
    )


def _operation(path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(given['name'])}</code></td><td>{given['in']}</td>"
        f"<td>{escape(_kind(given['schema']))}</td><td>{_prose(given['description'])}</td></tr>"
        for given in operation.get("parameters", [])
    )
    head = "<tr><th>parameter</th><th>in</th><th>type</th><th>what it is</th></tr>"
    replies = operation["responses"]
    faults = ", ".join(f'<a href="#faults">{status}</a>' for status in replies if status != "200")
    return (
        f'<section id="{escape(operation["operationId"])}"><h2><code>GET {escape(path)}</code></h2>'
        f"<p>{_prose(operation['summary'])}. {_prose(operation.get('description', ''))}</p>"
        + (f"<table>{head}{parameters}</table>" if parameters else "")
        + f"<p>Replies with {_contents(replies['200'])}; else {faults}.</p></section>"
    )


def _faults(operations: list[tuple[str, dict[str, Any]]]) -> str:
    """What the statuses beside 200 mean: the same everywhere."""
    meanings = {
        status: reply["description"]
        for _, operation in operations
        for status, reply in operation["responses"].items()
        if status != "200"
    }
    rows = "".join(f"<tr><td>{status}</td><td>{_prose(text)}</td></tr>" for status, text in meanings.items())
    about = f"Each has the body {_link({'$ref': 'Error'})}."
    return (
        f'<section id="faults"><h2>When there is no answer</h2><p>{about}</p><table>{rows}</table></section>'
    )


def _prose(text: str) -> str:
    """Text as HTML; what stands in backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def _contents(reply: dict[str, Any]) -> str:
    return " or ".join(
        f"{escape(media)} {_link(content['schema'])}".strip() for media, content in reply["content"].items()
    )


def _link(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#schema-{escape(name)}">{escape(name)}</a>' if name else ""


def _schema(name: str, schema: dict[str, Any]) -> str:
    fields = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{_link(_inner(of_field)) or escape(_kind(of_field))}</td>"
        f"<td>{_prose(of_field.get('description', ''))}</td></tr>"
        for field, of_field in schema.get("properties", {}).items()
    )
    about = _prose(schema.get("description", ""))
    return f'<h3 id="schema-{escape(name)}">{escape(name)}</h3><p>{about}</p><table>{fields}</table>'


def _inner(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an array's items, or of what may be null, else itself."""
    if "anyOf" in schema:
        return _inner(next(choice for choice in schema["anyOf"] if choice != {"type": "null"}))
    return schema.get("items", schema)


def _kind(schema: dict[str, Any]) -> str:
    """A type in few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return orjson.dumps(schema["const"]).decode()
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    bounds = [f"{schema[key]}" for key in ("minimum", "maximum") if key in schema]
    kind = schema.get("format", schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {_kind(schema['items'])}"
    default = f", {orjson.dumps(schema['default']).decode()} unless given" if "default" in schema else ""
    return kind + (f" {' to '.join(bounds)}" if len(bounds) == 2 else "") + default
