"""A TAXII 2.1 server with one collection of what this party tells others. Read only, with a token, within limits.

Source: TAXII 2.1 (OASIS): §4 discovery, API root; §5 collections, objects and manifest with ``limit``, ``next``, ``added_after`` and ``match[id|type]``.
Objects are served in the order in which they were added, which is that of their ``modified``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from starlette.responses import Response

MEDIA: Final = "application/taxii+json;version=2.1"
STIX: Final = "application/stix+json;version=2.1"
COLLECTION: Final = "9a1c2b3d-6a0b-5d4a-9b6e-51f3f2a7c0de"
MOST: Final = 1000
Objects = Callable[[], Sequence[dict[str, Any]]]


def application(objects: Objects, *, token: str, title: str) -> FastAPI:
    """The server. ``objects`` are asked for at each request; every request needs ``Authorization: Bearer`` or ``Token`` with the token."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    def allowed(request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() not in ("bearer", "token") or not compare_digest(given.strip().encode(), token.encode()):
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        accept = request.headers.get("accept", "*/*")
        if not any(kind in accept for kind in ("application/taxii+json", "application/stix+json", "*/*")):
            raise HTTPException(406)

    @app.get("/taxii2/")
    def discovery(request: Request) -> Response:
        allowed(request)
        root = str(request.url_for("api_root"))
        return _answer({"title": title, "default": root, "api_roots": [root]})

    @app.get("/kakoi/", name="api_root")
    def api_root(request: Request) -> Response:
        allowed(request)
        return _answer({"title": title, "versions": [MEDIA], "max_content_length": 1})

    @app.get("/kakoi/collections/")
    def collections(request: Request) -> Response:
        allowed(request)
        return _answer({"collections": [_described(title)]})

    @app.get("/kakoi/collections/{identity}/")
    def one(identity: str, request: Request) -> Response:
        allowed(request)
        _known(identity)
        return _answer(_described(title))

    @app.get("/kakoi/collections/{identity}/objects/")
    def listed(identity: str, request: Request) -> Response:
        allowed(request)
        _known(identity)
        page, following = _page(_matching(objects(), request), request)
        return _answer(
            {"more": following is not None, **({"next": following} if following else {}), "objects": page}, page
        )

    @app.get("/kakoi/collections/{identity}/manifest/")
    def manifest(identity: str, request: Request) -> Response:
        allowed(request)
        _known(identity)
        page, following = _page(_matching(objects(), request), request)
        entries = [
            {"id": item["id"], "date_added": item["modified"], "version": item["modified"], "media_type": STIX}
            for item in page
        ]
        return _answer(
            {"more": following is not None, **({"next": following} if following else {}), "objects": entries}, page
        )

    return app


def _described(title: str) -> dict[str, Any]:
    return {"id": COLLECTION, "title": title, "can_read": True, "can_write": False, "media_types": [STIX]}


def _known(identity: str) -> None:
    if identity != COLLECTION:
        raise HTTPException(404)


def _matching(found: Sequence[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
    query = request.query_params
    after = query.get("added_after", "")
    ids, types = (set(filter(None, query.get(f"match[{name}]", "").split(","))) for name in ("id", "type"))
    kept = [
        item
        for item in found
        if item["modified"] > after and (not ids or item["id"] in ids) and (not types or item["type"] in types)
    ]
    return sorted(kept, key=lambda item: (item["modified"], item["id"]))


def _page(found: list[dict[str, Any]], request: Request) -> tuple[list[dict[str, Any]], str | None]:
    try:
        start = int(request.query_params.get("next", "0"))
        limit = min(int(request.query_params.get("limit", MOST)), MOST)
    except ValueError:
        raise HTTPException(400) from None
    if start < 0 or limit < 1:
        raise HTTPException(400)
    end = start + limit
    return found[start:end], str(end) if end < len(found) else None


def _answer(value: dict[str, Any], page: Sequence[dict[str, Any]] = ()) -> Response:
    headers = {"Cache-Control": "no-store"}
    if page:
        headers |= {
            "X-TAXII-Date-Added-First": page[0]["modified"],
            "X-TAXII-Date-Added-Last": page[-1]["modified"],
        }
    return Response(json.dumps(value), media_type=MEDIA, headers=headers)
