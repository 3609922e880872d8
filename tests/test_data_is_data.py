"""What is read is never run: no pickles, no shell, and names that are nothing but names."""

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_loader.index import Index
from dist_loader.sequence.image import ImageSequence
from dist_loader.world import World

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "dist_loader").rglob("*.py"), *(ROOT / "launch").rglob("*.py")])
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
RUN_TEXT = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "yaml.load", "torch.load"}
SAFE = {"np.load": "allow_pickle=False", "load_model": "safe_mode=True"}  # which is the default of both


def faults(text):
    """Lines of a program that might run what they read."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if PICKLES & {name.split(".")[0] for name in names}:
                yield node.lineno
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords}
            safe = next((setting for end, setting in SAFE.items() if name.endswith(end)), None)
            unsafe = safe is not None and any(word.startswith(safe.split("=")[0]) for word in given - {safe})
            if name in RUN_TEXT or unsafe or any(word.startswith("shell=") for word in given - {"shell=False"}):
                yield node.lineno


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(source):
    assert list(faults(source.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval(x)",
        "np.load(path, allow_pickle=True)",
        "keras.models.load_model(path, safe_mode=False)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
    ],
)
def test_the_check_finds_what_does(text):
    assert list(faults(text)) == [1]
    assert list(faults("np.load(path)\nkeras.models.load_model(path)\nsubprocess.run(['ls', name])")) == []


NAMES = [
    "-rf.png",
    "--help.png",
    "%s%n%(x)s{0}{}{x!r}.png",
    "; touch pwned.png",
    "$(touch pwned).png",
    "`touch pwned`|touch pwned&.png",
    "two\nlines\r.png",
    "\x1b[31m\x07\t.png",
    "quote'\"\\.png",
    "*?[a]~.png",
    "\udcff\udcfe.png",
    "größe 图\u2028.png",
]


@pytest.mark.parametrize("way", ["folder", "list"])
@pytest.mark.parametrize("broken", [False, True])
def test_names_are_names_in_the_index_the_errors_and_the_file(way, broken, tmp_path, monkeypatch, caplog):
    root = tmp_path / "%s {0} $(touch pwned)" / "-class"
    root.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        path = root / name
        if broken:
            path.write_bytes(b"")
        else:
            Image.new("RGB", (8, 8), (200, 100, 50)).save(path, "png")
    paths = [str(root / name) for name in NAMES]
    index = Index.from_directory(root.parent) if way == "folder" else Index.from_paths(paths, [0] * len(paths), ["-c"])
    index.save(tmp_path / "index")
    index = Index.open(tmp_path / "index")
    file = tmp_path / "bad%s{0}.jsonl"
    sequence = ImageSequence(
        index, (4, 4), 6, 24, world=World(0, 1, 0, 1), on_bad="weight0", bad_budget=1.0, bad_file=file, threads=2
    )
    counted = sum(int((weights > 0).sum()) for images, _, weights in sequence if broken or np.array(images).any())
    sequence.close()
    assert counted == (0 if broken else len(NAMES))
    if broken:
        lines = [json.loads(line) for line in file.read_text(encoding="ascii").split("\n")[:-1]]
        assert sorted(line["path"] for line in lines) == sorted(paths)
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == len(NAMES)
        assert all(line.isprintable() for line in told)
    assert {Path(os.fsdecode(found)).name for found in os.listdir(os.fsencode(tmp_path))} <= {  # noqa: PTH208
        "%s {0} $(touch pwned)",
        "index",
        file.name,
    }
