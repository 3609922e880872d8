"""Runs programs one after the other in one process: job.py OUT STRATEGY NAME=FILE...

Each rank writes OUT/rank-N.json: by the program's name, its error or what its sequences showed and its model learned.
STRATEGY is what `dist_loader.init()` stands for: "auto", or "mirrored" on two logical CPU devices.
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import dist_loader as dl


def main(out: str, strategy: str, *programs: str) -> None:
    if strategy == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    rank = dl.World.detect().rank
    init = dl.init
    dl.init = lambda name=strategy: init(name)
    outcomes = {}
    for name, file in (program.split("=", 1) for program in programs):
        print(f"== {name}", flush=True)
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)
        space: dict[str, Any] = {"__name__": "__main__"}
        try:
            exec(compile(Path(file).read_text(), file, "exec"), space)
            outcomes[name] = seen(space)
        except Exception:
            outcomes[name] = {"error": traceback.format_exc()}
        (Path(out) / f"rank-{rank}.json").write_text(json.dumps(outcomes))
        if "error" in outcomes[name]:
            raise SystemExit(f"{name}:\n{outcomes[name]['error']}")


def seen(space: dict[str, Any]) -> dict[str, Any]:
    """What a program's sequences showed this rank in the second epoch, and what its model learned."""
    found: dict[str, Any] = {"sequences": {}}
    for name in ("train", "valid"):
        sequence = space.get(name)
        if hasattr(sequence, "numbers"):
            plan, first = sequence.plan, sequence.world.rank * sequence.plan.local_batch
            places = [step * plan.global_batch + first + np.arange(plan.local_batch) for step in range(plan.batches)]
            steps = [sequence.numbers(1, step) for step in range(plan.batches)] if plan.passes == 1 else []
            shown = [rows[place < plan.samples].tolist() for rows, place in zip(steps, places, strict=False)]
            found["sequences"][name] = {"samples": len(sequence.samples), "steps": len(sequence), "shown": shown}
            sequence.close()
    if "model" in space:
        weights = [weight.astype("float64") for weight in space["model"].get_weights()]
        found["finite"] = bool(all(np.isfinite(weight).all() for weight in weights))
        found["weights"] = hashlib.blake2b(b"".join(weight.tobytes() for weight in weights)).hexdigest()
    if hasattr(space.get("history"), "history"):
        found["history"] = {key: [float(v) for v in values] for key, values in space["history"].history.items()}
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
