"""/docs: the API as a page to read and to try (Swagger UI), from files that ship with a package.

Guards that no request leaves the host, and that the page runs nothing but these files (strict Content-Security-Policy).
"""

from importlib import resources
from typing import Any

from fastapi import FastAPI, Response

from driftline.errors import BadInput
from serving.replies import BEARER

__all__ = ["add_docs"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title}: API</title>
  <link rel="icon" href="docs/favicon.png">
  <link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
  <div id="api"></div>
  <script src="docs/swagger-ui-bundle.js"></script>
  <script src="docs/start.js"></script>
</body>
</html>
"""
START = """\
SwaggerUIBundle({
  url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null, persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon.png": "image/png",
}


def add_docs(app: FastAPI) -> None:
    """Add the page and its files, and name the tokens in the schema."""
    app.openapi = lambda: _with_tokens(app)  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return _file(PAGE.format(title=app.title), "text/html")

    @app.get("/docs/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name == "start.js":
            return _file(START, "text/javascript")
        if name not in ASSETS:
            raise BadInput("not_found", f"/docs has no file {name!r:.80}", status=404)
        return _file(resources.files("fastapi_offline").joinpath("static", name).read_bytes(), ASSETS[name])


def _file(content: str | bytes, media_type: str) -> Response:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return Response(content, headers=headers, media_type=media_type)


def _with_tokens(app: FastAPI) -> dict[str, Any]:
    document = FastAPI.openapi(app)
    document.setdefault("components", {})["securitySchemes"] = BEARER
    return document
