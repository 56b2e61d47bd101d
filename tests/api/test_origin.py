from __future__ import annotations

import pytest

from airflow_provider_feedamp.api.session import origin_of


@pytest.mark.parametrize(
    "same",
    ["https://host/api/v1", "https://host:443/other?x=1", "https://HOST", "HTTPS://user:word@host/"],
)
def test_urls_of_one_origin_are_the_same(same: str) -> None:
    assert origin_of(same) == ("https", "host", 443)


@pytest.mark.parametrize(
    "other",
    [
        "http://host/api/v1",
        "https://host:8443/api/v1",
        "https://host.evil.example/api/v1",
        "https://host@evil.example/api/v1",
        "https://host:443@evil.example/",
        "//host/api/v1",
        "host/api/v1",
        "",
        None,
    ],
)
def test_urls_of_another_origin_differ(other: str | None) -> None:
    assert origin_of(other) != ("https", "host", 443)
