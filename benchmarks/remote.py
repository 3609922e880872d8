"""Images a second from a web server that is 20 ms away, by the number of requests in flight.

    python benchmarks/remote.py [--images 800] [--rounds 3]

The server runs in a process of its own and waits 20 ms before each answer. Photo-like JPEG files of about 455 x 400
are fetched alone, and go through ImageSequence to 224 x 224 pixels; the rounds of all settings are interleaved. The
local rows are the same files from disk, and from a local copy that is full. Result: benchmarks/results/remote.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from PIL import Image

import dist_loader as dl
from dist_loader.remote.fetch import Fetcher

LATENCY = 0.02
SIZE, BATCH = (224, 224), 64
PORT = 18173


def write_corpus(folder: Path, images: int) -> None:
    """JPEG files with the detail of a photo: smooth shapes, edges and some noise."""
    for number in range(images):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 14, 3), np.uint8)).resize(
            (455, 400), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse, np.int16) + rng.normal(0, 9, (400, 455, 3)).astype(np.int16)
        path = folder / f"class-{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def serve(folder: str, pipe: multiprocessing.connection.Connection) -> None:
    from aiohttp import web

    files = {f"/{path.relative_to(folder)}": path.read_bytes() for path in Path(folder).rglob("*.jpg")}

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(LATENCY)
        return web.Response(body=files[request.path])

    async def tell(app: web.Application) -> None:
        pipe.send(True)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    app.on_startup.append(tell)
    web.run_app(app, host="127.0.0.1", port=PORT, print=None)


def rate(index: dl.Index, **how: Any) -> float:
    sequence = dl.ImageSequence(index, SIZE, BATCH, host_batch=8 * BATCH, world=dl.World(0, 1, 0, 1), **how)
    start = time.perf_counter()
    for step in range(len(sequence)):
        sequence[step]
    passed = time.perf_counter() - start
    sequence.close()
    return len(index) / passed


def fetch_rate(index: dl.Index, requests: int) -> float:
    read = Fetcher("http", requests).read
    with ThreadPoolExecutor(requests) as pool:
        start = time.perf_counter()
        for _ in pool.map(read, map(index.path, range(len(index)))):
            pass
        return len(index) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "photos", args.images)
        local = dl.Index.from_directory(Path(folder) / "photos")
        relative = [local.path(n)[len(local.root) + 1 :] for n in range(len(local))]
        remote = dl.Index.from_paths(relative, local.labels, local.classes, root=f"http://127.0.0.1:{PORT}")
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(local.root, theirs), daemon=True)
        server.start()
        ours.recv()
        time.sleep(0.5)
        settings: dict[str, tuple[dl.Index, dict[str, Any]]] = {
            f"{requests} in flight": (remote, {"requests": requests}) for requests in (1, 8, 32, 64)
        }
        settings["32 in flight, local copy filled"] = (remote, {"requests": 32, "local_copy": f"{folder}/copy"})
        settings["local files"] = (local, {})
        rate(remote, requests=32, local_copy=f"{folder}/copy")  # fills it
        rates: dict[str, list[float]] = {name: [] for name in settings}
        fetched: dict[str, list[float]] = {str(requests): [] for requests in (1, 8, 32, 64)}
        for _ in range(args.rounds):
            for requests, values in fetched.items():
                values.append(fetch_rate(remote, int(requests)))
            for name, (index, how) in settings.items():
                rates[name].append(rate(index, **how))
        server.terminate()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{median:7.0f} images/s  {name}")
    fetched_medians = {requests: statistics.median(values) for requests, values in fetched.items()}
    for requests, median in fetched_medians.items():
        print(f"{median:7.0f} files/s fetched alone, {requests} in flight")
    facts = {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("fsspec", "aiohttp")},
        "images": args.images,
        "latency_seconds": LATENCY,
    }
    fetching = {"fetched_per_second": fetched, "fetched_medians": fetched_medians}
    result = fetching | {"images_per_second": rates, "medians": medians, "facts": facts}
    Path(__file__).with_name("results").joinpath("remote.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
