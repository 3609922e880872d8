"""What `import dist_loader` brings in, and what it does not."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

import dist_loader

HEAVY = ("tensorflow", "keras", "horovod", "mpi4py", "pyarrow", "PIL", "cv2", "simplejpeg", "numpy")


def loaded_by(statement):
    """Which of the heavy packages a statement loads into a fresh interpreter."""
    program = f"import json, sys\n{statement}\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout))


def test_the_package_alone_loads_nothing_heavy():
    assert loaded_by("import dist_loader; dist_loader.__version__; dir(dist_loader)") == set()


@pytest.mark.parametrize(
    ("statement", "brings"),
    [
        ("from dist_loader import World; World.detect()", set()),
        ("from dist_loader import ConfigError, DistLoaderError, ReadTimeout, SampleError", set()),
        ("from dist_loader import Index", {"numpy"}),
        ("from dist_loader import Permutation; Permutation(9, 0, 0)[:]", {"numpy"}),
        ("from dist_loader import Plan; Plan(9, 2, 2).batch(0, 0, 1)", {"numpy"}),
        ("from dist_loader.watchdog import Watch", set()),
        ("from dist_loader.window import HostWindow", {"numpy"}),
        ("from dist_loader.readers.image import ImageReader", {"numpy", "PIL", "cv2", "simplejpeg"}),
    ],
)
def test_the_rooms_below_keras_do_without_it(statement, brings):
    assert loaded_by(statement) == brings


@pytest.mark.parametrize("name", dist_loader.__all__)
def test_every_public_name_is_there(name):
    value = getattr(dist_loader, name)
    assert getattr(import_module(value.__module__), value.__name__) is value
    assert name in dir(dist_loader)


def test_every_name_that_is_there_is_public():
    assert sorted(dist_loader.__all__) == list(dist_loader.__all__)
    assert set(dist_loader.__all__) == set(dist_loader._HOMES)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dist_loader' has no attribute 'ImageSequnce'"):
        dist_loader.ImageSequnce  # noqa: B018
    with pytest.raises(ImportError):
        from dist_loader import nothing  # noqa: F401
