"""A teacher behind an HTTP address."""

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from cake_jax import checks
from cake_jax.types import CakeError, first_line

_TYPES = {"json": "application/json", "npy": "application/octet-stream"}
_CHUNK_BYTES = 2**16


class Unanswered(Exception):
    """A request failed and should be repeated. A function that is the source of a black box may raise it too.

    Attributes:
      after: Shortest wait before the repetition, in seconds.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An HTTP endpoint that classifies. Each request is a POST with the header `Idempotency-Key`.

    The key depends on the inputs and their order. A server that receives a key twice should repeat its first answer
    without charging.

    Attributes:
      url: Address of the server, `https://...` or `http://...`.
      body: Format of requests and answers. "json" sends `{"inputs": [...]}` and expects `{"outputs": [...]}`. "npy"
        sends and expects an array in NumPy's format.
      headers: Headers of every request, such as the authorization. They are not saved, and no other server gets them.
      timeout: Longest time in seconds without data from the server. After it, the request has failed.
      max_bytes: Size of the longest accepted answer.

    Raises:
      CakeError: A field is invalid.
    """

    url: str = dataclasses.field(repr=False)
    body: str = "json"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    timeout: float = 60.0
    max_bytes: int = 2**26
    _session: requests.Session = dataclasses.field(
        default_factory=requests.Session, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if "authorization" in map(str.lower, self.headers):
            # Without an `auth` of its own, a session replaces the user's authorization by that of a .netrc file.
            self._session.auth = lambda request: request
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise CakeError(f"Endpoint.url: {self.name} is no address that begins with https:// or http://")
        checks.one_of("Endpoint.body", self.body, _TYPES)
        checks.above_zero("Endpoint.timeout", self.timeout)
        checks.above_zero("Endpoint.max_bytes", self.max_bytes)

    @property
    def name(self) -> str:
        """Host and path for messages. The rest of an address may hold a password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname or ''}{parts.path}"

    def ask(self, x: np.ndarray, key: str) -> Any:
        """Sends one request once.

        Args:
          x: Inputs `[B, *shape]` float32.
          key: Key of the request. Equal inputs have equal keys.

        Returns:
          The unchecked answers.

        Raises:
          Unanswered: No connection, a timeout, an incomplete answer, or status 408, 429 or 5xx.
          CakeError: The server returned another status or an unreadable answer, or the request is invalid.
        """
        if self.body == "json":
            content = json.dumps({"inputs": x.tolist()}).encode()
        else:
            buffer = io.BytesIO()
            np.save(buffer, x, allow_pickle=False)
            content = buffer.getvalue()
        own = {"Content-Type": _TYPES[self.body], "Accept": _TYPES[self.body], "Idempotency-Key": key}
        headers = {**self.headers, **own}
        try:
            # A redirect would send the headers to another server.
            with self._session.post(
                self.url, content, headers=headers, timeout=self.timeout, stream=True, allow_redirects=False
            ) as response:
                return self._read(response)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            # The error's own text holds the whole address.
            raise Unanswered(f"{self.name}: {type(error).__name__}") from error
        except requests.RequestException as error:
            raise CakeError(f"{self.name}: the request cannot be sent ({type(error).__name__})") from error
        finally:
            # Each request has a connection of its own. Over a kept one, a second answer to this request would be taken
            # for the answer to the next.
            self._session.close()

    def _read(self, response: requests.Response) -> Any:
        status = f"{self.name}: status {response.status_code}"
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise Unanswered(status, _retry_after(response.headers.get("Retry-After")))
        if not 200 <= response.status_code < 300:
            text = next(response.iter_content(200), b"").decode(errors="replace")
            raise CakeError(f"{status} {''.join(filter(str.isprintable, text))}".rstrip())
        content = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            content += chunk
            if len(content) > self.max_bytes:
                raise CakeError(f"{self.name}: its answer is longer than max_bytes = {self.max_bytes}")
        try:
            if self.body == "json":
                return json.loads(bytes(content))["outputs"]
            return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # an unreadable answer may raise any error
            expected = "JSON with 'outputs'" if self.body == "json" else "an array in NumPy's format"
            raise CakeError(f"{self.name}: its answer is not {expected}: {first_line(error)}") from error


def _retry_after(header: str | None) -> float:
    """Seconds of the header `Retry-After`, which holds seconds or a date. 0 if it is missing or unreadable."""
    try:
        return Retry().parse_retry_after(header) if header else 0.0
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0
