"""A client of `fluxone serve`, or of Black Forest Labs' own API: pictures in, pictures out, waiting included.

    Client(url).generate(prompt)     POST /v1/flux-dev -> poll -> fetch -> Picture
    AsyncClient(url)                 the same, awaited; each call waits in a thread of its own

A request is sent again when the connection breaks or the server is full or still loading; with its `Idempotency-Key` it
stays one request. Needs nothing but the standard library, and Pillow for pictures.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fluxone.errors import BadFile, FluxoneError, UserError, pick

if TYPE_CHECKING:
    from PIL.Image import Image

    Input = Image | str | Path | bytes
    Progress = Callable[[float, Image | None], None]  # share that is done, unfinished picture

LOCAL = "http://127.0.0.1:8080"
FIRST, SLOWEST = 0.05, 1.0  # s between polls: the first ones, and those of a long wait
GROW = 1.3
ANSWER = 60.0  # s for one answer
AGAIN = {429, 502, 503}  # statuses after which a request is sent again
CONTROLS = {"canny": "flux-pro-1.0-canny", "depth": "flux-pro-1.0-depth", "pose": "flux-pro-1.0-pose"}
DETECTED = ("canny",)  # kinds of pictures that the server finds itself

P = ParamSpec("P")
T = TypeVar("T")


class Refused(UserError):
    """The server does not take the request. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Moderated(UserError):
    """The server's content policy is against the request, or the picture."""


class Unreachable(FluxoneError):
    """The server does not answer, or not in time."""


class Failed(FluxoneError):
    """The server could not draw it."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture.

    Attributes:
        data: the file, with its record inside.
        details: which model drew it, at what size, and what was done otherwise than asked.
        seconds: from the request to the picture, on the server.
    """

    id: str
    data: bytes = field(repr=False)
    seed: int
    prompt: str
    seconds: float
    details: Mapping[str, Any]

    @cached_property
    def image(self) -> Image:
        """As Pillow has it."""
        from PIL import Image

        return Image.open(io.BytesIO(self.data))

    def save(self, path: str | Path) -> Path:
        """Write the file as it came."""
        place = Path(path)
        place.write_bytes(self.data)
        return place


class Client:
    """A client of one server.

    Args:
        url: where it is.
        key: API key, if it needs one.
        timeout: s, for a picture from request to file; it is given up then.
    """

    def __init__(self, url: str = LOCAL, *, key: str | None = None, timeout: float = 600.0) -> None:
        self.url, self.key, self.timeout = url.rstrip("/"), key, timeout

    def generate(
        self, prompt: str, *, size: tuple[int, int] = (1024, 768), seed: int | None = None, steps: int | None = None,
        guidance: float | None = None, endpoint: str = "flux-dev", fields: Mapping[str, Any] | None = None,
        on_progress: Progress | None = None,
    ) -> Picture:  # fmt: skip
        """Draw from words.

        Args:
            size: width and height, px.
            fields: more fields of the endpoint, such as `{"loras": [{"name": "tok", "scale": 0.8}]}`.

        Raises:
            Refused, Moderated, Failed, Unreachable: see these.
        """
        width, height = size
        told = {"prompt": prompt, "width": width, "height": height, "steps": steps, "guidance": guidance}
        return self.draw(endpoint, {**told, "seed": seed, **(fields or {})}, on_progress)

    def ultra(
        self, prompt: str, *, aspect: str = "16:9", raw: bool = False, seed: int | None = None,
        fields: Mapping[str, Any] | None = None, on_progress: Progress | None = None,
    ) -> Picture:  # fmt: skip
        """Draw four megapixels. Raises: as `generate`."""
        told = {"prompt": prompt, "aspect_ratio": aspect, "raw": raw, "seed": seed}
        return self.draw("flux-pro-1.1-ultra", {**told, **(fields or {})}, on_progress)

    def edit(
        self, image: Input | list[Input], instruction: str, *, seed: int | None = None,
        fields: Mapping[str, Any] | None = None, on_progress: Progress | None = None,
    ) -> Picture:  # fmt: skip
        """Change a picture, or several together, by an instruction. Raises: as `generate`."""
        images: list[Input] = image if isinstance(image, list) else [image]
        names = ["input_image", *(f"input_image_{n}" for n in range(2, len(images) + 1))]
        told = {name: encoded(one) for name, one in zip(names, images, strict=True)}
        body = {"prompt": instruction, **told, "seed": seed, **(fields or {})}
        return self.draw("flux-kontext-pro", body, on_progress)

    def fill(
        self, image: Input, mask: Input | None, prompt: str = "", *, seed: int | None = None,
        fields: Mapping[str, Any] | None = None, on_progress: Progress | None = None,
    ) -> Picture:  # fmt: skip
        """Repaint what a mask has white, or without one what is transparent. Raises: as `generate`."""
        told = {"image": encoded(image), "mask": None if mask is None else encoded(mask), "prompt": prompt}
        return self.draw("flux-pro-1.0-fill", {**told, "seed": seed, **(fields or {})}, on_progress)

    def expand(
        self, image: Input, prompt: str = "", *, margins: Mapping[str, int], seed: int | None = None,
        fields: Mapping[str, Any] | None = None, on_progress: Progress | None = None,
    ) -> Picture:  # fmt: skip
        """Grow a picture by px to the `left`, `right`, `top` and `bottom`. Raises: as `generate`."""
        told = {"image": encoded(image), "prompt": prompt, **margins, "seed": seed}
        return self.draw("flux-pro-1.0-expand", {**told, **(fields or {})}, on_progress)

    def control(
        self, kind: str, image: Input, prompt: str, *, seed: int | None = None,
        fields: Mapping[str, Any] | None = None, on_progress: Progress | None = None,
    ) -> Picture:  # fmt: skip
        """Draw along the edges of a picture (`canny`), or along given depths (`depth`) or limbs (`pose`).

        Raises: as `generate`."""
        name = "control_image" if kind in DETECTED else "preprocessed_image"
        told = {"prompt": prompt, name: encoded(image), "seed": seed}
        return self.draw(pick(CONTROLS, kind, "kind of control"), {**told, **(fields or {})}, on_progress)

    def draw(self, endpoint: str, fields: Mapping[str, Any], on_progress: Progress | None = None) -> Picture:
        """Send fields to any endpoint and wait for the picture. Raises: as `generate`."""
        end = time.monotonic() + self.timeout
        task = self._ask(f"/v1/{endpoint}", {"output_format": "png", **_given(fields)}, end=end)
        return self.wait(str(task["polling_url"]), on_progress, end=end)

    def wait(self, polling_url: str, on_progress: Progress | None = None, *, end: float | None = None) -> Picture:
        """Wait for a picture that was asked for. Raises: as `generate`."""
        end = time.monotonic() + self.timeout if end is None else end
        pause = FIRST
        while True:
            told = self._ask(polling_url, end=end)
            status = told["status"]
            if status == "Ready":
                return self._picture(told)
            if "Moderated" in status:
                raise Moderated(f"{status}: {', '.join((told.get('details') or {}).get('Moderation Reasons', []))}")
            if status != "Pending":
                raise Failed(f"{status}: {(told.get('details') or {}).get('error', 'no reason is given')}")
            if on_progress is not None:
                on_progress(told.get("progress") or 0.0, _preview(told.get("preview")))
            self._pause(pause, end)
            pause = min(SLOWEST, pause * GROW)

    def models(self) -> list[str]:
        """What the server has loaded. Raises: as `generate`."""
        return [row["id"] for row in self._ask("/v1/models")["data"]]

    def loras(self) -> list[str]:
        """The LoRAs that it has names for. Raises: as `generate`."""
        return [str(name) for name in self._ask("/v1/my_finetunes")["finetunes"]]

    def cancel(self, task: str) -> bool:
        """Give a task up; whether it was in work. Raises: as `generate`."""
        return bool(self._ask(f"/v1/cancel?id={task}", {})["cancelled"])

    def _picture(self, told: Mapping[str, Any]) -> Picture:
        result = told["result"]
        return Picture(
            id=told["id"],
            data=self._fetch(result["sample"]),
            seed=result.get("seed", 0),
            prompt=result.get("prompt", ""),
            seconds=result.get("duration", 0.0),
            details=told.get("details") or {},
        )

    def _fetch(self, url: str) -> bytes:
        try:
            with urllib.request.urlopen(url, timeout=ANSWER) as answer:  # links are signed: no key is sent along
                return bytes(answer.read())
        except (OSError, HTTPException) as error:
            raise Unreachable(f"the picture at {url.split('?')[0]} cannot be fetched: {error}") from None

    def _ask(self, path: str, body: Mapping[str, Any] | None = None, *, end: float | None = None) -> dict[str, Any]:
        """An answer; waits while the server is full or loading, and through broken connections."""
        end = time.monotonic() + self.timeout if end is None else end
        url = path if "://" in path else self.url + path
        headers = {"x-key": self.key} if self.key else {}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        while True:
            request = urllib.request.Request(url, data, headers, method="GET" if data is None else "POST")
            try:
                with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                    return dict(json.load(answer))
            except urllib.error.HTTPError as error:
                told = _told(error)
                if error.code not in AGAIN:
                    raise Refused(error.code, told) from None
                trouble, pause = told, float(error.headers.get("Retry-After") or SLOWEST)
            except (OSError, HTTPException, ValueError) as error:
                trouble, pause = f"{self.url} does not answer: {error}", SLOWEST
            self._pause(pause, end, trouble)

    def _pause(self, seconds: float, end: float, trouble: str = "the picture was not there in time") -> None:
        if time.monotonic() + seconds > end:
            raise Unreachable(trouble, hint=f"waited {self.timeout:g} s")
        time.sleep(seconds)


class AsyncClient:
    """`Client` for asyncio: every method of it, awaited."""

    def __init__(self, url: str = LOCAL, *, key: str | None = None, timeout: float = 600.0) -> None:
        client = Client(url, key=key, timeout=timeout)
        self.client = client
        self.generate, self.ultra, self.edit = _awaited(client.generate), _awaited(client.ultra), _awaited(client.edit)
        self.fill, self.expand = _awaited(client.fill), _awaited(client.expand)
        self.control, self.draw, self.wait = _awaited(client.control), _awaited(client.draw), _awaited(client.wait)
        self.models, self.loras, self.cancel = _awaited(client.models), _awaited(client.loras), _awaited(client.cancel)


def _awaited(call: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    async def _call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(partial(call, *args, **kwargs))

    return _call


def encoded(image: Input) -> str:
    """A picture as requests carry it: base64 of its file. A URL stays one.

    Raises:
        BadFile: there is no such file.
    """
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:")):
        return image
    if isinstance(image, str | Path):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise BadFile(f"{image} cannot be read: {error.strerror}", hint="give a picture's path or URL") from None
    elif isinstance(image, bytes):
        data = image
    else:
        file = io.BytesIO()
        image.save(file, "PNG")
        data = file.getvalue()
    return base64.b64encode(data).decode()


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _preview(told: Mapping[str, str] | None) -> Image | None:
    from PIL import Image

    return None if not told else Image.open(io.BytesIO(base64.b64decode(told["sample"].partition(",")[2])))


def _told(error: urllib.error.HTTPError) -> str:
    """What the server says of an error, in any of the dialects."""
    try:
        body = json.loads(error.read())
        inner = body.get("error")
        return str(body.get("message") or (inner.get("message") if isinstance(inner, dict) else body.get("detail")))
    except (OSError, ValueError, AttributeError):
        return f"{error.code} {error.reason}"
