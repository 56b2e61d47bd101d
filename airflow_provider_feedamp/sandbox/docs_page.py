"""A page that shows an OpenAPI description, without scripts and without anything from another host."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b2330}
h2{margin-top:2rem;border-bottom:1px solid #cdd5e0}
details{border:1px solid #cdd5e0;border-radius:6px;margin:.4rem 0;padding:.3rem .8rem}
summary{cursor:pointer} summary b{display:inline-block;width:4.5rem}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#f4f6f9;padding:.6rem;overflow:auto;max-height:24rem}
table{border-collapse:collapse} td,th{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}
"""
_PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{style}</style></head>
<body><h1>{title}</h1><p>{text}</p><p>The same for machines: <a href="/openapi.json">/openapi.json</a></p>
{sections}<h2 id="schemas">Schemas</h2>{schemas}</body></html>"""


def page(description: dict[str, Any]) -> str:
    """Return the HTML page of an OpenAPI description.

    :param description: The description.
    """
    sections: dict[str, list[str]] = {}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            sections.setdefault(tag, []).append(_operation(method, path, operation))
    info = description["info"]
    return _PAGE.format(
        title=escape(info["title"]),
        text=escape(info["description"]),
        style=_STYLE,
        sections="".join(f"<h2>{escape(tag)}</h2>{''.join(each)}" for tag, each in sections.items()),
        schemas="".join(map(_schema, description["components"]["schemas"].items())),
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation.get('summary', ''))}"
    return f"<details><summary>{head}</summary>{''.join(_parts(operation))}</details>"


def _parts(operation: dict[str, Any]) -> Iterator[str]:
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if operation.get("parameters"):
        rows = "".join(map(_parameter, operation["parameters"]))
        yield f"<table><tr><th>parameter</th><th>in</th><th>required</th><th>schema</th></tr>{rows}</table>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{escape(kind)}</code></p>{_json(content.get('schema', {}))}"
    for status, answer in operation["responses"].items():
        yield f"<p><b>{escape(status)}</b> {escape(answer['description'])}</p>"
        for content in answer.get("content", {}).values():
            yield _json(content["schema"]) if content.get("schema") else ""


def _parameter(parameter: dict[str, Any]) -> str:
    cells = (parameter["name"], parameter["in"], "yes" if parameter["required"] else "no")
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr>{row}<td><code>{escape(json.dumps(parameter['schema']))}</code></td></tr>"


def _schema(item: tuple[str, dict[str, Any]]) -> str:
    name, schema = item
    head = f"<summary><code>{escape(name)}</code></summary>"
    return f'<details id="{escape(name)}">{head}{_json(schema)}</details>'


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
