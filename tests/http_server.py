"""A local HTTP server that classifies, and loses requests on demand."""

import collections
import contextlib
import http.server
import io
import json
import socket
import threading
import time

import numpy as np

# The ways to lose a request, as `Server.failure` names them.
LOST = ("status 500", "dropped", "dropped when done", "hangs when done", "half an answer")
# The ways to break the protocol: the announced length is not that of the answer, or the answer is sent twice.
LIES = ("announces more", "announces less", "answers twice", "answers twice, later")


def logits(pixels):
    return np.concatenate([pixels, pixels[:, :1] * pixels[:, 1:]], axis=1)


class Memory:
    """The database of a server, which outlives it.

    Attributes:
      keys: Keys of all requests, in the order of arrival.
      charged: Dict from a key to the bytes of its rows. A repeated key is charged once.
      answers: Dict from a key to its answer.
      conflicts: Keys that came with other rows than the first time.
    """

    def __init__(self):
        self.keys, self.charged, self.answers, self.conflicts = [], {}, {}, []

    @property
    def rows(self):
        """How often each row was charged."""
        return collections.Counter(row for rows in self.charged.values() for row in rows)

    def answer(self, key, x, answer):
        rows = [row.tobytes() for row in x]
        if self.charged.setdefault(key, rows) != rows:
            self.conflicts.append(key)
        return self.answers.setdefault(key, answer(x))


class Server(http.server.ThreadingHTTPServer):
    """A classifier of pixels.

    Attributes:
      memory: The `Memory`.
      failure: Function of a request's number, from 1, and the memory. It returns None, one of `LOST` or `LIES`, or a
        response `(status, body)` or `(status, body, headers)`.
      answer: Function of pixels `[B, D]` to an array, or to the bytes of a response.
      url: Address of the server.
      headers: Headers of all requests.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self, memory=None, failure=lambda number, memory: None, answer=logits, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.memory, self.failure, self.answer = memory or Memory(), failure, answer
        self.url = f"http://127.0.0.1:{self.server_port}/classify"
        self.headers, self.lock, self.stopped = [], threading.Lock(), threading.Event()

    def handle_error(self, request, client_address):
        """Prints nothing if a client closes its connection."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server, memory = self.server, self.server.memory
        body = self.rfile.read(int(self.headers["Content-Length"]))
        as_json = self.headers["Content-Type"] == "application/json"
        x = np.float32(json.loads(body)["inputs"]) if as_json else np.load(io.BytesIO(body), allow_pickle=False)
        with server.lock:
            server.headers.append(dict(self.headers))
            memory.keys.append(self.headers["Idempotency-Key"])
            failure = server.failure(len(memory.keys), memory)
            if failure in ("status 500", "dropped"):
                return self.send(500, b"oops") if failure == "status 500" else self.hang_up()
            if isinstance(failure, tuple):
                return self.send(*failure)
            answer = memory.answer(self.headers["Idempotency-Key"], x, server.answer)
        if failure == "dropped when done":
            return self.hang_up()
        if failure == "hangs when done":
            server.stopped.wait(5)
            return self.hang_up()
        if not isinstance(answer, bytes):
            answer = json.dumps({"outputs": answer.tolist()}).encode() if as_json else npy(answer)
        more = {"announces more": 10, "announces less": -10}.get(failure, 0)
        self.send(200, answer, whole=failure != "half an answer", more=more)
        if failure in ("answers twice", "answers twice, later"):
            self.wfile.flush()
            time.sleep(0.2 if failure == "answers twice, later" else 0)
            self.send(200, answer)

    def send(self, status, body, headers=(), whole=True, more=0):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", len(body) + more)
        self.end_headers()
        self.wfile.write(body if whole else body[: len(body) // 2])
        if not whole:
            self.hang_up()

    def hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
