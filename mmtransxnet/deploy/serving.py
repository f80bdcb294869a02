"""Serve an exported model over HTTP, in one process.

Pictures that need no further padding run together (micro-batching), so an
answer does not depend on other requests. PyTorch is not needed: this file
imports nothing of the package, and tools/serve.py loads it by its path.
"""

import asyncio
import base64
import io
import json
import signal
import sys
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

_MAX_HEADER_BYTES = 16 * 1024
_RAW_TYPES = ('', 'application/octet-stream')


@dataclass(frozen=True)
class Limits:
    """What the server accepts.

    Attributes:
        bytes: Maximum size of a request's body.
        pixels: Maximum width x height of a picture.
        seconds: Maximum time of a request, sending its body included.
        requests: Maximum number of requests at a time; more get 503.
        batch: Maximum number of pictures in a run of the engine.
        wait: Seconds to wait for further pictures of a batch.
        map_bytes: Maximum size of the class maps of a run of a segmentor,
            batch x classes x height x width float32 of the pictures: with
            many classes they need far more memory than all else.
    """

    bytes: int = 20 * 2**20
    pixels: int = 40_000_000
    seconds: float = 30.0
    requests: int = 64
    batch: int = 8
    wait: float = 0.005
    map_bytes: int = 4 * 2**30

    def map_pixels(self, model: Any) -> int | None:
        """How many pixels of pictures a segmentor may have in a run."""
        if model.task != 'segmentation':
            return None
        return self.map_bytes // (4 * len(model.classes))


# ---- Metrics -----------------------------------------------------------


@dataclass
class Histogram:
    """Counts of values in cumulative buckets."""

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        below = sum(value > bound for bound in self.bounds)
        self.counts[below] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """The histogram in Prometheus' text format."""
        lines = [f'# TYPE {name} histogram']
        sums = 0
        for bound, count in zip(
            [*self.bounds, '+Inf'], self.counts, strict=True
        ):
            sums += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {sums}')
        return [*lines, f'{name}_sum {self.total}', f'{name}_count {sums}']


class Metrics:
    """What /metrics shows."""

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.in_flight = 0
        self.seconds = Histogram(
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
        )
        self.batch = Histogram((1, 2, 4, 8, 16, 32))

    def text(self, waiting: int) -> str:
        """All metrics in Prometheus' text format."""
        prefix = 'mmtransxnet'
        lines = [f'# TYPE {prefix}_requests_total counter']
        lines += [
            f'{prefix}_requests_total{{status="{status}"}} {count}'
            for status, count in sorted(self.statuses.items())
        ]
        for name, value in (
            ('in_flight', self.in_flight),
            ('queue', waiting),
        ):
            lines += [
                f'# TYPE {prefix}_{name} gauge',
                f'{prefix}_{name} {value}',
            ]
        lines += self.seconds.lines(f'{prefix}_request_seconds')
        lines += self.batch.lines(f'{prefix}_batch_size')
        return '\n'.join(lines) + '\n'


# ---- Micro-batching ----------------------------------------------------


@dataclass(eq=False)
class _Waiting:
    """A picture in the queue."""

    prepared: Any
    key: tuple[int, ...]
    arrived: float
    result: asyncio.Future


class Batcher:
    """Collects pictures and runs them together, first come, first served.

    Args:
        model: The model of the runtime; used in one thread.
        error: The runtime's error of a picture.
        limits: Size of a batch, and how long to wait for it.
        metrics: Where sizes of batches are counted.
    """

    def __init__(
        self,
        model: Any,
        error: type[Exception],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._model = model
        self._error = error
        self._limits = limits
        self._metrics = metrics
        self._queue: list[_Waiting] = []
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, 'engine')

    def __len__(self) -> int:
        return len(self._queue)

    async def predict(self, prepared: Any) -> Any:
        """Predict a prepared picture, with others if they come in time."""
        future = asyncio.get_running_loop().create_future()
        key = self._model.key(prepared)
        item = _Waiting(prepared, key, time.monotonic(), future)
        self._queue.append(item)
        self._arrival.set()
        try:
            return await future
        finally:
            if item in self._queue:  # cancelled: do not compute it
                self._queue.remove(item)

    async def run(self) -> None:
        """Run batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            self._metrics.batch.add(len(batch))
            pictures = [item.prepared for item in batch]
            outcomes = await loop.run_in_executor(
                self._thread, self._outcomes, pictures
            )
            for item, outcome in zip(batch, outcomes, strict=True):
                if item.result.done():
                    continue
                if isinstance(outcome, Exception):
                    item.result.set_exception(outcome)
                else:
                    item.result.set_result(outcome)

    async def _next_batch(self) -> list[_Waiting]:
        while True:
            self._arrival.clear()
            if self._queue:
                first = self._queue[0]
                batch = [item for item in self._queue if item.key == first.key]
                most = self._largest_batch(first.prepared)
                batch = batch[:most]
                left = first.arrived + self._limits.wait - time.monotonic()
                if len(batch) == most or left <= 0:
                    for item in batch:
                        self._queue.remove(item)
                    return batch
                await _wait_for(self._arrival.wait(), left)
            else:
                await self._arrival.wait()

    def _largest_batch(self, prepared: Any) -> int:
        """How many pictures of this size may run together."""
        pixels = self._limits.map_pixels(self._model)
        if pixels is None:
            return self._limits.batch
        height, width = prepared.size
        return max(1, min(self._limits.batch, pixels // (height * width)))

    def _outcomes(self, pictures: list[Any]) -> list[Any]:
        """Results, or errors of single pictures; in the engine's thread."""
        try:
            return self._model.predict(pictures)
        except self._error as error:
            if len(pictures) == 1:
                return [error]
            # One of them must not make the others fail.
            return [self._outcomes([picture])[0] for picture in pictures]
        # A defect must not stop the server: the requests get 500.
        except Exception as error:
            return [error] * len(pictures)


async def _wait_for(event: Awaitable[Any], seconds: float) -> None:
    """Wait for an event, but not longer."""
    try:
        await asyncio.wait_for(event, seconds)
    except asyncio.TimeoutError:
        return


# ---- Requests ----------------------------------------------------------


class Service:
    """The model behind the routes.

    Args:
        runtime: The runtime: predict.py of the folder.
        model: The model it has loaded.
        limits: What is accepted.
    """

    def __init__(self, runtime: ModuleType, model: Any, limits: Limits):
        self._runtime = runtime
        self._model = model
        self._limits = limits
        self._metrics = Metrics()
        self._batcher: Batcher
        self._task: asyncio.Task
        self._most_pixels = limits.pixels
        pixels = limits.map_pixels(model)
        if pixels is not None:
            # A model of a constant batch always runs all of it.
            pixels //= model.info['input']['batch'] or 1
            self._most_pixels = min(limits.pixels, pixels)
        # Decoding and encoding, beside the engine.
        self._workers = ThreadPoolExecutor(2, 'pictures')

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the batches while the server runs."""
        self._batcher = Batcher(
            self._model,
            self._runtime.PictureError,
            self._limits,
            self._metrics,
        )
        self._task = asyncio.create_task(self._batcher.run())
        yield
        self._task.cancel()

    async def health(self) -> dict[str, Any]:
        """The model, as long as it can be used."""
        if self._task.done():
            raise HTTPException(503, 'the batches have stopped')
        return {
            'status': 'ok',
            'task': self._model.task,
            'classes': len(self._model.classes),
            'engine': self._model.engine,
        }

    async def metrics(self) -> Response:
        """Metrics for Prometheus."""
        text = self._metrics.text(len(self._batcher))
        return Response(text, media_type='text/plain; version=0.0.4')

    async def predict(
        self,
        request: Request,
        score_thr: Annotated[float, Query(ge=0, le=1)] = 0.0,
    ) -> Response:
        """Predict a picture: the body, or the file of a form."""
        if self._metrics.in_flight >= self._limits.requests:
            self._count(503)
            raise HTTPException(503, 'too many requests', {'Retry-After': '1'})
        self._metrics.in_flight += 1
        start = time.monotonic()
        status = 500
        try:
            response = await self._answer(request, score_thr, start)
            status = response.status_code
            return response
        except StarletteHTTPException as error:
            status = error.status_code
            raise
        finally:
            self._metrics.in_flight -= 1
            self._metrics.seconds.add(time.monotonic() - start)
            self._count(status)

    def _count(self, status: int) -> None:
        statuses = self._metrics.statuses
        statuses[status] = statuses.get(status, 0) + 1

    async def _answer(
        self, request: Request, score_thr: float, start: float
    ) -> Response:
        as_png = _wants_png(request)
        if as_png and self._model.task != 'segmentation':
            raise HTTPException(
                406, 'image/png is only for label maps: accept JSON'
            )
        picture = await self._in_time(
            _read_body(request, self._limits.bytes),
            start,
            HTTPException(408, 'the body did not arrive in time'),
        )
        try:
            return await self._in_time(
                self._predict(picture, score_thr, as_png),
                start,
                HTTPException(504, 'no result in time'),
            )
        except self._runtime.PictureSizeError as error:
            raise HTTPException(413, str(error)) from error
        except self._runtime.PictureError as error:
            raise HTTPException(400, str(error)) from error

    async def _in_time(
        self, work: Awaitable[Any], start: float, error: HTTPException
    ) -> Any:
        left = start + self._limits.seconds - time.monotonic()
        try:
            return await asyncio.wait_for(work, left)
        except asyncio.TimeoutError:
            raise error from None

    async def _predict(
        self, picture: bytes, score_thr: float, as_png: bool
    ) -> Response:
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(
            self._workers, self._prepare, picture
        )
        result = await self._batcher.predict(prepared)
        encode = self._png if as_png else self._json
        body = await loop.run_in_executor(
            self._workers, encode, result, score_thr
        )
        kind = 'image/png' if as_png else 'application/json'
        return Response(body, media_type=kind)

    def _prepare(self, picture: bytes) -> Any:
        pixels = self._runtime.read_picture(picture, self._most_pixels)
        return self._model.prepare(pixels)

    def _png(self, result: Any, score_thr: float) -> bytes:
        file = io.BytesIO()
        image = self._runtime.palette_image(result.labels, self._model.palette)
        image.save(file, 'PNG')
        return file.getvalue()

    def _json(self, result: Any, score_thr: float) -> bytes:
        height, width = result.size
        content: dict[str, Any] = {'width': width, 'height': height}
        if self._model.task == 'detection':
            # Before the masks are pasted, one at a time.
            result = result.above(score_thr)
        content['results'] = self._runtime.as_json(result, self._model.classes)
        if self._model.task == 'segmentation':
            png = base64.b64encode(self._png(result, score_thr))
            content['label_map'] = png.decode('ascii')
        return json.dumps(content).encode()


def _wants_png(request: Request) -> bool:
    accepted = request.headers.get('accept', '')
    kinds = [part.partition(';')[0].strip() for part in accepted.split(',')]
    return 'image/png' in kinds and 'application/json' not in kinds


async def _read_body(request: Request, most: int) -> bytes:
    """The picture's file in the body of a request.

    Raises:
        HTTPException: It is too large, of another type, or not one file.
    """
    kind = request.headers.get('content-type', '').partition(';')[0].strip()
    form = kind == 'multipart/form-data'
    if not (form or kind in _RAW_TYPES or kind.startswith('image/')):
        raise HTTPException(
            415, f'{kind}: send image/..., application/octet-stream or a form'
        )
    if int(request.headers.get('content-length') or 0) > most:
        raise _too_large(most)
    try:
        if form:
            return await _read_form(request, most)
        return b''.join([part async for part in _limited(request, most)])
    except ClientDisconnect:
        raise HTTPException(400, 'the body is not complete') from None


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The parts of a body, up to a number of bytes."""
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > most:
            raise _too_large(most)
        yield part


def _too_large(most: int) -> HTTPException:
    # The rest of the body is not read.
    return HTTPException(
        413, f'more than {most} bytes', {'Connection': 'close'}
    )


async def _read_form(request: Request, most: int) -> bytes:
    parser = MultiPartParser(
        request.headers, _limited(request, most), max_files=1, max_fields=8
    )
    try:
        form = await parser.parse()
    # The parser raises others for a missing boundary.
    except (MultiPartException, KeyError, ValueError) as error:
        raise HTTPException(400, f'not a form with a file: {error}') from error
    async with _closing(form):
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read()
    raise HTTPException(400, 'the form has no file')


@asynccontextmanager
async def _closing(form: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await form.close()


# ---- The server --------------------------------------------------------


def create_app(runtime: ModuleType, model: Any, limits: Limits) -> FastAPI:
    """The application with the routes /predict, /health and /metrics."""
    service = Service(runtime, model, limits)
    app = FastAPI(
        title='mmtransxnet',
        lifespan=service.lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.add_api_route(
        '/predict', service.predict, methods=['POST'], response_model=None
    )
    app.add_api_route('/health', service.health)
    app.add_api_route('/metrics', service.metrics, response_model=None)
    return app


class _Server(uvicorn.Server):
    """Prints its address once it accepts requests."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in getattr(self, 'servers', ()):
            host, port = server.sockets[0].getsockname()[:2]
            sys.stdout.write(f'serving on http://{host}:{port}\n')
            sys.stdout.flush()


def serve(app: FastAPI, host: str, port: int, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are finished.

    Raises:
        SystemExit: The port cannot be used.
    """
    config = uvicorn.Config(
        app,
        host,
        port,
        http='h11',  # limits the size of headers
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        ws='none',
        # uvicorn's default closes the log files of the whole process.
        log_config=None,
        log_level='warning',
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )
    # uvicorn raises the signal again once it has finished; the process should
    # end normally.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _Server(config).run()
