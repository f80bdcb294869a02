"""Serve the page: gradio behind a short list of routes."""

import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from mmtransxnet.utils.errors import UserError
from mmtransxnet.web.legend import CSS

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

# What the page and gradio_client need. Gradio has more, which would fetch
# addresses, write the program anew or show who uses it.
_ROUTES = re.compile(
    r'/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)?'
    r'|/(assets|static)/.*'
    r'|/gradio_api/(app_id|startup-events|info/?|theme\.css)'
    r'|/gradio_api/(upload|upload_progress|queue/(join|data))'
    r'|/gradio_api/(call/(v2/)?predict(/\w+)?|run/predict|cancel|reset/?)'
    r'|/gradio_api/heartbeat/\w+'
    # A file; gradio would fetch an address.
    r'|/gradio_api/file=(?!https?:).*',
    re.DOTALL,
)

_HEADERS = {
    'content-security-policy': (
        "default-src 'self'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self'; object-src 'none'; "
        "connect-src 'self' data: blob:; font-src 'self' data:; "
        "img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' "
        'blob:'
    ),
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
}

_MAX_BODY = 2**20
"""Maximum size of a request in bytes beside the files."""


class Gate:
    """Passes only what the page needs.

    Args:
        app: The application behind it.
        max_bytes: Maximum size of a file.
    """

    def __init__(self, app: Any, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(
        self, scope: _Message, receive: _Receive, send: _Send
    ) -> None:
        """Refuse a request, or pass it on and add headers to the answer."""
        if scope['type'] != 'http':
            if scope['type'] == 'lifespan':
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: _Message) -> None:
            if message['type'] == 'http.response.start':
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        app = refusal or self._app
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: _Message) -> PlainTextResponse | None:
        path = scope['path']
        if not _ROUTES.fullmatch(path):
            return PlainTextResponse('not found', 404)
        if scope['method'] != 'POST':
            return None
        length = Headers(scope=scope).get('content-length', '')
        if not length.isdecimal():
            return PlainTextResponse('its length is missing', 411)
        most = _MAX_BODY + (
            self._max_bytes if path == '/gradio_api/upload' else 0
        )
        if int(length) > most:
            return PlainTextResponse(
                f'more than {most} bytes', 413, {'connection': 'close'}
            )
        return None


def create_app(page: gr.Blocks, max_bytes: int) -> Gate:
    """The application.

    Args:
        page: From :func:`~mmtransxnet.web.page.build_page`.
        max_bytes: Maximum size of a picture's file.
    """
    fonts = ['system-ui', 'sans-serif']
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path='/',
        app_kwargs={'docs_url': None, 'redoc_url': None},
        # Gradio's default theme loads fonts from another host.
        theme=gr.themes.Default(font=fonts, font_mono=['monospace']),
        css=CSS,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    return Gate(app, max_bytes)


class _Server(uvicorn.Server):
    """Prints its address once it accepts requests."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in getattr(self, 'servers', ()):
            host, port = server.sockets[0].getsockname()[:2]
            host = f'[{host}]' if ':' in host else host
            sys.stdout.write(f'Open http://{host}:{port}; end with Ctrl-C\n')
            sys.stdout.flush()


def serve(app: Gate, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UserError: The port cannot be used.
    """
    config = uvicorn.Config(
        app,
        host,
        port,
        ws='none',
        # uvicorn's default closes the log files of the whole process.
        log_config=None,
        log_level='warning',
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)
    try:
        server.run()
    except SystemExit as error:
        raise UserError(
            f'--host {host} --port {port}: cannot listen there; choose '
            'another port (0: any free one)'
        ) from error
    except KeyboardInterrupt:
        return
