"""A teacher behind an address: one request over HTTP, and its answer."""

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

from cake_jax.types import CakeError, first_line

_TYPES = {"json": "application/json", "npy": "application/octet-stream"}
_PART = 2**16


class Unanswered(Exception):
    """A request that may be answered when it is repeated. A function that asks a server may raise it too.

    Attributes:
      after: Seconds to wait before the repetition, at least.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An HTTP endpoint that classifies: a POST for each request, with the header `Idempotency-Key`.

    A key names the rows and their order. Who gets it twice should answer as the first time and charge nothing.

    Attributes:
      url: Its address, `https://...` or `http://...`.
      body: "json": `{"inputs": [...]}`, answered by `{"outputs": [...]}`; "npy": an array in NumPy's format, answered
        by another.
      headers: Sent with every request; those that authorise, say. They are kept nowhere and told to nobody else.
      timeout: Seconds without a sign of the server after which a request counts as lost.
      max_bytes: Size of the longest answer that is read.

    Raises:
      CakeError: A field cannot be right.
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
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise CakeError(f"Endpoint.url: {self.name} is no address that begins with https:// or http://")
        if self.body not in _TYPES:
            raise CakeError(f"Endpoint.body: '{self.body}' is not one of {', '.join(_TYPES)}")
        for name in ("timeout", "max_bytes"):
            if not getattr(self, name) > 0:
                raise CakeError(f"Endpoint.{name}: {getattr(self, name)} must be above 0")

    @property
    def name(self) -> str:
        """Host and path, for messages: the rest of an address may hold a password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname or ''}{parts.path}"

    def ask(self, x: np.ndarray, key: str) -> Any:
        """One try.

        Args:
          x: Inputs `[B, *shape]` float32.
          key: The same for the same inputs.

        Returns:
          What it answered, to be checked.

        Raises:
          Unanswered: No connection, a time-out, an answer that broke off, or status 408, 429 or 5xx.
          CakeError: Another status, or an answer that cannot be read.
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
            # A redirection would take the headers elsewhere.
            with self._session.post(
                self.url, content, headers=headers, timeout=self.timeout, stream=True, allow_redirects=False
            ) as response:
                return self._read(response)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise Unanswered(f"{self.name}: {type(error).__name__}") from error  # its text has the whole address
        except requests.RequestException as error:
            raise CakeError(f"{self.name}: cannot be asked ({type(error).__name__})") from error

    def _read(self, response: requests.Response) -> Any:
        status = f"{self.name}: status {response.status_code}"
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise Unanswered(status, _retry_after(response.headers.get("Retry-After")))
        if not 200 <= response.status_code < 300:
            text = next(response.iter_content(200), b"").decode(errors="replace")
            raise CakeError(f"{status} {''.join(filter(str.isprintable, text))}".rstrip())
        content = bytearray()
        for part in response.iter_content(_PART):
            content += part
            if len(content) > self.max_bytes:
                raise CakeError(f"{self.name}: its answer is longer than max_bytes = {self.max_bytes}")
        try:
            if self.body == "json":
                return json.loads(bytes(content))["outputs"]
            return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # what it raises depends on what is wrong with it
            wanted = "JSON with 'outputs'" if self.body == "json" else "array in NumPy's format"
            raise CakeError(f"{self.name}: its answer is no {wanted}: {first_line(error)}") from error


def _retry_after(header: str | None) -> float:
    """Seconds: the header gives them, or a date."""
    try:
        return Retry().parse_retry_after(header) if header else 0.0
    except InvalidHeader:
        return 0.0
