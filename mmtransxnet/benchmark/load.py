"""Load on tools/serve.py, from this machine."""

import asyncio
import contextlib
import io
import json
import math
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.extras import import_extra

_START_SECONDS = 120
_REQUEST_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        process: The process.
        url: Its address.
    """

    process: subprocess.Popen
    url: str

    def memory(self) -> float:
        """Resident memory in MiB; Linux only."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(status.partition('VmRSS:')[2].split()[0]) / 1024


@contextmanager
def serving(tool: Path, folder: Path, *flags: str) -> Iterator[Server]:
    """Run the server as a process.

    Args:
        tool: tools/serve.py.
        folder: The exported folder.
        flags: More flags of the tool.

    Raises:
        UserError: It did not start.
    """
    words = [sys.executable, str(tool), str(folder), '--port', '0', *flags]
    with tempfile.TemporaryFile('w+') as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
        try:
            yield Server(process, _address(process, output))
        finally:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen, output: Any) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        output.seek(0)
        printed = output.read()
        found = re.search(r'serving on (\S+)', printed)
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise UserError(f'the server did not start: {printed.strip()}')


def sample_pictures(count: int, sizes: Sequence[int]) -> list[bytes]:
    """Distinct PNGs of noise on a colour, of several sizes.

    Args:
        count: How many.
        sizes: Width and height in pixels, used in turn.
    """
    pictures = []
    for index in range(count):
        draw = np.random.default_rng(index)
        width = sizes[index % len(sizes)]
        height = sizes[(index + index // len(sizes)) % len(sizes)]
        pixels = draw.integers(0, 64, (height, width, 3))
        pixels = pixels + draw.integers(0, 192, 3)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, 'PNG')
        pictures.append(file.getvalue())
    return pictures


@dataclass
class Outcome:
    """Counts of a run.

    Attributes:
        answered: Requests with the answer that the picture has alone, up to
            rounding.
        mixed_up: Requests with another answer.
        refused: Answers 503; each such request was repeated.
        lost: Requests without an answer, or with another status.
        seconds: Time of each answered request, refusals not included.
        duration: Seconds of the whole run.
    """

    answered: int = 0
    mixed_up: int = 0
    refused: int = 0
    lost: int = 0
    seconds: list[float] = field(default_factory=list)
    duration: float = 0.0

    def summary(self) -> dict[str, Any]:
        """The counts, requests per second and times in milliseconds."""
        times = sorted(self.seconds) or [0.0]
        return {
            'answered': self.answered,
            'mixed up': self.mixed_up,
            'refused with 503 and repeated': self.refused,
            'lost': self.lost,
            'per second': round(self.answered / self.duration, 1),
            'median ms': round(statistics.median(times) * 1e3, 1),
            '99 % ms': round(times[int(0.99 * (len(times) - 1))] * 1e3, 1),
        }


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcome of runs one after the other."""
    whole = Outcome()
    for part in parts:
        for entry in fields(Outcome):
            value = getattr(whole, entry.name) + getattr(part, entry.name)
            setattr(whole, entry.name, value)
    return whole


async def load(
    url: str, pictures: Sequence[bytes], total: int, clients: int
) -> Outcome:
    """Send pictures from several clients and check each answer.

    Args:
        url: Address of the server.
        pictures: Sent in turn.
        total: Number of requests.
        clients: Number of clients, each with a request at a time.
    """
    httpx = import_extra('httpx', 'httpx')
    outcome = Outcome()
    async with httpx.AsyncClient(
        base_url=url,
        timeout=_REQUEST_SECONDS,
        limits=httpx.Limits(max_connections=clients),
        trust_env=False,
    ) as client:
        expected = [await _alone(client, picture) for picture in pictures]
        rest = iter(range(total))

        async def work() -> None:
            for number in rest:
                index = number % len(pictures)
                await _send(client, pictures[index], expected[index], outcome)

        start = time.monotonic()
        await asyncio.gather(*(work() for _ in range(clients)))
        outcome.duration = time.monotonic() - start
    return outcome


async def _alone(client: Any, picture: bytes) -> Any:
    answer = await client.post('/predict', content=picture)
    if answer.status_code != 200:
        raise UserError(f'the server answers {answer.text}')
    return answer.json()


# Differences that rounding makes: of pixels in boxes, of the share of a class
# in a label map, and of scores.
_TOLERANCES = dict(bbox=2e-3, share=2e-3)
_TOLERANCE = 1e-4

# A pixel of masks and label maps may differ.
_NOT_COMPARED = ('segmentation', 'label_map', 'pixels')


def same_answer(
    got: Any, expected: Any, tolerance: float = _TOLERANCE
) -> bool:
    """Whether answers are equal up to rounding, which depends on the batch.

    Masks and label maps are not compared, and objects are in any order: those
    of equal scores may change places.
    """
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and got.keys() == expected.keys()
            and all(
                same_answer(got[key], value, _TOLERANCES.get(key, tolerance))
                for key, value in expected.items()
                if key not in _NOT_COMPARED
            )
        )
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            return False
        if all(isinstance(entry, dict) for entry in expected):
            return _same_in_any_order(got, expected)
        return all(
            same_answer(mine, theirs, tolerance)
            for mine, theirs in zip(got, expected, strict=True)
        )
    if isinstance(expected, float):
        return isinstance(got, float) and math.isclose(
            got, expected, rel_tol=1e-4, abs_tol=tolerance
        )
    return bool(got == expected)


def _same_in_any_order(got: list[Any], expected: list[Any]) -> bool:
    left = list(got)
    for entry in expected:
        equal = (i for i, mine in enumerate(left) if same_answer(mine, entry))
        index = next(equal, None)
        if index is None:
            return False
        del left[index]
    return True


async def _send(
    client: Any, picture: bytes, expected: Any, outcome: Outcome
) -> None:
    """Send a picture until it is accepted."""
    while True:
        start = time.monotonic()
        try:
            answer = await client.post('/predict', content=picture)
        # Any error of the connection is a lost request.
        except Exception:
            outcome.lost += 1
            return
        if answer.status_code == 503 and 'retry-after' in answer.headers:
            outcome.refused += 1
            await asyncio.sleep(0.02)
            continue
        if answer.status_code != 200:
            outcome.lost += 1
        elif not same_answer(json.loads(answer.content), expected):
            outcome.mixed_up += 1
        else:
            outcome.answered += 1
            outcome.seconds.append(time.monotonic() - start)
        return


async def stop_in_flight(
    server: Server, picture: bytes, count: int
) -> dict[str, int]:
    """Send SIGTERM while requests are in flight.

    Args:
        server: The server, with a limit of at least ``count`` requests.
        picture: What each request sends.
        count: Number of requests.

    Returns:
        How many were in flight, how many of them were answered with 200, and
        the exit status.
    """
    httpx = import_extra('httpx', 'httpx')
    async with httpx.AsyncClient(
        base_url=server.url, timeout=_REQUEST_SECONDS, trust_env=False
    ) as client:
        sent = [
            asyncio.create_task(client.post('/predict', content=picture))
            for _ in range(count)
        ]
        async with httpx.AsyncClient(
            base_url=server.url, trust_env=False
        ) as observer:
            in_flight = 0
            while in_flight < count and not all(t.done() for t in sent):
                text = (await observer.get('/metrics')).text
                in_flight = _gauge(text, 'in_flight')
        server.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*sent, return_exceptions=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(_START_SECONDS)
    finished = [getattr(a, 'status_code', None) == 200 for a in answers]
    return {
        'in flight': in_flight,
        'finished': sum(finished),
        'exit status': int(server.process.poll() or 0),
    }


def _gauge(text: str, name: str) -> int:
    found = re.search(rf'^mmtransxnet_{name} (\d+)$', text, re.MULTILINE)
    return int(found[1]) if found else 0
