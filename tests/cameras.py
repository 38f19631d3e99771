"""A camera for tests: MJPEG over HTTP on loopback."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@contextmanager
def camera(
    count: int, *, silent: bool = False, broken: bool = False, size: tuple[int, int] = (64, 48)
) -> Iterator[str]:
    """An MJPEG stream on loopback: so many frames, then it closes, or gives nothing more; its URL.

    Every second frame of a `broken` one is cut.
    """
    done = threading.Event()
    pictures = [_jpeg(value, size) for value in range(0, 256, 32)]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for number in range(count):
                    jpeg = pictures[number % len(pictures)]
                    jpeg = jpeg[: len(jpeg) // 3] if broken and number % 2 else jpeg
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                if silent:
                    done.wait(30)
            except OSError:
                pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/camera.mjpg"
    finally:
        done.set()
        server.shutdown()
        server.server_close()


def _jpeg(value: int, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 255 - value, 128)).save(buffer, "JPEG")
    return buffer.getvalue()
