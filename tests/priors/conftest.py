"""Weights by the golden folder's recipe: the same numbers wherever they are made."""

import hashlib
import http.server
import threading
import zlib
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import held


def weight(key, shape):
    u = 2 * torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))) - 1
    if len(shape) >= 2:
        # In this order: another rounds now and then to the next float16, which shows as 2e-5 in a full-size network's output.
        value = u * (1.7 / torch.Size(shape[1:]).numel() ** 0.5)
    else:
        value = 1 + 0.1 * u if key.endswith("weight") else 0.1 * u
    return value.half()


@pytest.fixture(scope="session")
def networks(golden: Path) -> Path:
    """Weights, inputs and outputs of the original networks."""
    return held(golden / "networks")


@pytest.fixture(scope="session")
def recipe_weights():
    """A function of a network that gives its state_dict by the recipe, in float16 (which the recipe's numbers are exact in)."""

    def fill(network: nn.Module) -> dict[str, torch.Tensor]:
        return {key: weight(key, tuple(value.shape)) for key, value in network.state_dict().items()}

    return fill


CONTENT = bytes(torch.randint(256, (300_000,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).tolist())

SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; `breaks` says after how many bytes the server's next responses break off, `ranges` if Range works."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if self.headers["Range"] else 0
        server.requests.append(first)
        if self.path != "/weights.pt":
            self.send_error(404)
            return
        if not server.ranges:
            first = 0
        elif first >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        body = CONTENT[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.breaks, server.ranges = [], [], True
        server.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
