"""The explorer's web server: this machine alone, one page, a secret address, requests of that page alone.

In: a session, a page, a port. Out: answers over HTTP until Ctrl-C. Every request needs the random word in its address and
this server's own name as host, those that ask for work also its own origin, so that no other page of the browser gets
an answer or makes it work. Paths never come from a request: pictures are asked for by number.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headwise.errors import HeadwiseError, explained

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from headwise.jobs.steps.exploring import Session

HOST = "127.0.0.1"
MOST_BODY = 100_000  # bytes of a request
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def listen(port: int) -> socket.socket:
    """A socket of this machine alone.

    Arguments:
        port: 0: any that is free.

    Raises:
        HeadwiseError: the port is in use, or may not be used.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was left a moment ago is free
    try:
        found.bind((HOST, port))
        found.listen(64)
    except (OSError, OverflowError) as error:
        found.close()
        why = getattr(error, "strerror", None) or error
        raise HeadwiseError(
            f"Port {port} cannot be used: {why}. Choose another one with --port, or leave --port out: then any that is "
            "free is taken."
        ) from error
    return found


def site(session: Session, page: str, pictures: Callable[[int], bytes], token: str, port: int) -> ASGIApp:
    """The application.

    Arguments:
        page: HTML.
        pictures: number of an image → WebP; raises HeadwiseError where it cannot be read.
        token: the word that every address begins with.
        port: where it listens.
    """
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    def refused(status: int, text: str) -> Response:
        return PlainTextResponse(text, status, headers=HEADERS)

    def show(request: Request) -> Response:
        from headwise.reports.explore import POLICY

        return HTMLResponse(page, headers=HEADERS | {"Content-Security-Policy": POLICY})

    def picture(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(session.pairs):
            return refused(404, "There is no such picture.")
        try:
            return Response(pictures(number), media_type="image/webp", headers=HEADERS)
        except HeadwiseError as error:
            return refused(410, str(error))

    async def asked(request: Request) -> Mapping[str, Any]:
        body = b""
        try:
            async for part in request.stream():
                body += part
                if len(body) > MOST_BODY:
                    raise HeadwiseError("The request is too long.")
        except ClientDisconnect as error:  # nobody reads the answer
            raise HeadwiseError("The request ended early.") from error
        try:
            found = json.loads(body)
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise HeadwiseError("The request holds half a character (a lone surrogate).") from error
        except (ValueError, RecursionError) as error:
            raise HeadwiseError("The request is not JSON.") from error
        if not isinstance(found, dict):
            raise HeadwiseError("The request is not a JSON object.")
        return found

    async def answered(request: Request, work: Callable[[Mapping[str, Any]], Any]) -> Any:
        """What the work makes of a request, or the response that says what was wrong."""
        from starlette.concurrency import run_in_threadpool

        try:
            return await run_in_threadpool(work, await asked(request))
        except Exception as error:
            status = 400 if isinstance(error, HeadwiseError) else 500
            return JSONResponse({"error": explained(error)}, status, headers=HEADERS)

    async def look(request: Request) -> Response:
        turn = session.turn()  # in the order of their coming, however long it takes to understand them
        answers = await answered(request, lambda found: session.look(found, turn))
        if isinstance(answers, Response):
            return answers
        return StreamingResponse(lines(answers), media_type="application/x-ndjson", headers=HEADERS)

    async def save(request: Request) -> Response:
        folder = await answered(request, session.save)
        return folder if isinstance(folder, Response) else JSONResponse({"folder": str(folder)}, headers=HEADERS)

    routes = [
        Route(f"/{token}/", show, methods=["GET"]),
        Route(f"/{token}/picture/{{number:int}}", picture, methods=["GET"]),
        Route(f"/{token}/look", look, methods=["POST"]),
        Route(f"/{token}/save", save, methods=["POST"]),
    ]
    return _guarded(Starlette(routes=routes), token, port)


def lines(answers: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """Answers as lines of JSON; an error becomes the last one."""
    try:
        for answer in answers:
            yield json.dumps(answer) + "\n"
    except Exception as error:
        yield json.dumps({"error": explained(error)}) + "\n"


def _guarded(app: ASGIApp, token: str, port: int) -> ASGIApp:
    """Refuses what does not come from the page itself."""
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    async def guard(scope, receive, send) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return
        heads = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host, origin = heads.get("host", ""), heads.get("origin")
        word = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        works = scope["method"] not in ("GET", "HEAD")
        refused = (
            host not in hosts
            or not secrets.compare_digest(word.encode("utf-8", "surrogateescape"), token.encode())
            or (origin is not None and origin != f"http://{host}")
            or (works and (origin is None or not heads.get("content-type", "").startswith("application/json")))
            or heads.get("sec-fetch-site", "none") not in ("none", "same-origin")
        )
        if refused:
            await PlainTextResponse("Not allowed.", 403, headers=HEADERS)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return guard


def serve(app: ASGIApp, listening: socket.socket, stop: Callable[[], None]) -> None:
    """Answer until Ctrl-C, then end what runs and return.

    Arguments:
        stop: called when the end begins.

    Raises:
        KeyboardInterrupt: of another kind than Ctrl-C (SIGTERM).
    """
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            stop()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    try:
        Server(config).run(sockets=[listening])
    except KeyboardInterrupt as end:  # uvicorn hands the signal on when it is done
        if type(end) is not KeyboardInterrupt:
            raise
    finally:
        stop()
        listening.close()


def check_installed() -> None:
    """
    Raises:
        HeadwiseError: the extra's libraries are missing.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise HeadwiseError(
            "The explorer needs starlette and uvicorn, which are not installed: pip install 'headwise[explore]'"
        ) from error


class Pictures:
    """Thumbnails by number, made when they are first asked for."""

    def __init__(self, make: Callable[[int], bytes]):
        self._make = make
        self._made: dict[int, bytes] = {}
        self._turn = threading.Lock()

    def __call__(self, number: int) -> bytes:
        with self._turn:
            if number not in self._made:
                self._made[number] = self._make(number)
            return self._made[number]
