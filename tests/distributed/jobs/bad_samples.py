"""Trains on images of which some cannot be read: bad_samples.py IMAGES FOLDER [stock].

With "stock" one process also trains with Keras alone on the samples that can be read, step by step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dist_loader as dl

strategy = dl.init("horovod" if len(sys.argv) == 3 else "single")

import keras  # noqa: E402
import numpy as np  # noqa: E402

GLOBAL_BATCH = 8
images, folder = Path(sys.argv[1]), Path(sys.argv[2])
index = dl.Index.open(images / "index")


def sequence(**kwargs: object) -> dl.ImageSequence:
    batch = GLOBAL_BATCH // strategy.world.size
    return dl.ImageSequence(
        index, (8, 8), batch, strategy=strategy, shuffle=False, on_bad="weight0", bad_budget=0.9, threads=2, **kwargs
    )


def model() -> keras.Model:
    made = keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
    return made


train = sequence()
with strategy.scope():
    net = model()
history = strategy.fit(net, train, validation_data=sequence(), epochs=2, checkpoint_dir=folder, verbose=0)
known = {"bad_file": folder / "bad_samples.jsonl"}
evaluated = strategy.evaluate(net, sequence(**known))
predicted = strategy.predict(net, sequence(**known))
rank = strategy.world.rank
np.savez(folder / f"rank-{rank}.npz", *net.get_weights())
(folder / f"rank-{rank}.json").write_text(
    json.dumps(
        {
            "bad_samples": history.summary.bad_samples,
            "history": history.history,
            "evaluated": evaluated,
            "unread": None if predicted is None else np.flatnonzero(np.isnan(predicted).any(axis=1)).tolist(),
            "shape": None if predicted is None else predicted.shape,
        }
    )
)

if sys.argv[3:]:
    stock, batches = model(), sequence(**known)
    for _ in range(2):
        for pictures, labels, weights in batches:
            if weights.any():
                stock.train_on_batch(pictures[weights > 0], labels[weights > 0])
    np.savez(folder / "stock.npz", *stock.get_weights())
