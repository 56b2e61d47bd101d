"""Be a person at the connection form of Airflow 2: ``python -m tests.hooks.posted_form '[{...}, {...}]'``.

Each object is one visit: the form is opened, the fields that the object names are changed, it is saved. After
each the connection is printed as it is stored, one JSON object a line.
"""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from typing import Any

from airflow.models import Connection
from airflow.utils.session import create_session
from airflow.www.app import create_app  # type: ignore[import-not-found,unused-ignore]


class Form(HTMLParser):
    """What a browser would send back of a page's fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "input" and given.get("type") not in ("submit", "button", "checkbox"):
            self.values[name] = given.get("value") or ""
        elif tag == "textarea":
            self._open = name
            self.values[name] = ""
        elif tag == "select":
            self._open = name
        elif tag == "option" and "selected" in given:
            self.values[self._open] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("textarea", "select"):
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open and self._open in self.values and not self.values[self._open].strip():
            self.values[self._open] = data


def main(visits: list[dict[str, str]]) -> None:
    app = create_app(config={"TESTING": True, "WTF_CSRF_ENABLED": False})
    manager = app.appbuilder.sm
    with app.app_context():
        manager.add_user("ann", "Ann", "Admin", "ann@example.org", manager.find_role("Admin"), password="ann")
    client = app.test_client()
    client.post("/login/", data={"username": "ann", "password": "ann"})
    for visit in visits:
        place = f"/connection/edit/{stored().id}" if stored() else "/connection/add"
        page = client.get(place)
        assert page.status_code == 200, page.status_code
        form = Form(page.text)
        answer = client.post(place, data=form.values | visit)
        assert answer.status_code in (200, 302), answer.status_code
        kept = stored()
        told = {"page": page.text, "refused": answer.status_code == 200, "again": answer.text}
        told |= {"password": kept.password, "extra": kept.extra_dejson} if kept else {}
        print("\n" + json.dumps(told))


def stored() -> Any:
    with create_session() as session:
        found = session.query(Connection).filter_by(conn_id="feedamp_eu").one_or_none()
        if found:
            session.expunge(found)
        return found


main(json.loads(sys.argv[1]))
