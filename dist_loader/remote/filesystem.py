"""File systems by the scheme of an address: fsspec's, told to give up in time."""

from __future__ import annotations

from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from dist_loader.remote.retry import Limits

_INSTALL = "pip install 'dist-loader[remote]'"
_S3, _GOOGLE = ("s3", "s3a"), ("gs", "gcs")


def open_filesystem(scheme: str, requests: int, limits: Limits) -> Any:
    """The asynchronous file system of a scheme, from fsspec; nothing is asked of the network yet.

    Where it is and who asks comes from fsspec's own configuration and from what its libraries know (environment
    variables, files in the home folder). What is set there goes before what is set here.

    Args:
        scheme: such as "s3".
        requests: how many are made at the same time.
        limits: how long they may take.

    Raises:
        ConfigError: fsspec or the library for this scheme is not installed, or it cannot be asked asynchronously.
    """
    try:
        import fsspec
        from fsspec.config import conf
    except ImportError:
        raise ConfigError(f"{scheme}:// needs fsspec: {_INSTALL}") from None
    try:
        kind = _google() if scheme in _GOOGLE else fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"cannot read {scheme}:// addresses: {error}; {_INSTALL}") from None
    if not kind.async_impl:
        # Its requests could only run in threads, which nothing can end when the link stalls.
        raise ConfigError(
            f"cannot read {scheme}:// addresses: fsspec's {kind.__name__} is not asynchronous, so a link that stalls "
            f"could not be told; copy the files to this machine, or mount them"
        )
    known = conf.get(scheme, {})
    options = {name: value for name, value in _options(scheme, requests, limits).items() if name not in known}
    try:
        filesystem = kind(skip_instance_cache=True, **options)
    except (ImportError, TypeError, ValueError) as error:  # it wants to be told more than an address says
        raise ConfigError(
            f"cannot read {scheme}:// addresses: fsspec's {kind.__name__}: {error}; set it in fsspec's configuration"
        ) from None
    # Two loops around one another would multiply the tries and the time.
    if scheme in _S3:
        filesystem.retries = 1
    if scheme in _GOOGLE and (once := getattr(kind._request, "__wrapped__", None)) is not None:  # noqa: SLF001
        filesystem._request = MethodType(once, filesystem)  # noqa: SLF001
    return filesystem


def _google() -> Any:
    """Google's, over HTTP. What gcsfs itself takes first asks for a bucket's type over gRPC.

    Where nobody answers that (a firewall, another server than Google's), it waits for a minute, before every request.
    """
    return import_module("gcsfs.core").GCSFileSystem


def _options(scheme: str, requests: int, limits: Limits) -> dict[str, Any]:
    if scheme in ("http", "https"):
        return {"client_kwargs": {"timeout": _timeout(limits), "trust_env": True}}
    if scheme in _S3:
        config = {
            "connect_timeout": limits.connect,
            "read_timeout": limits.silence,
            "max_pool_connections": requests,
            "retries": {"total_max_attempts": 1},
        }
        # Of more than one connection for a file, s3fs would first ask for its size: two requests for each image.
        return {"config_kwargs": config, "max_concurrency": 1, "use_listings_cache": False}
    if scheme in _GOOGLE:
        return {"requests_timeout": _timeout(limits), "use_listings_cache": False}
    return {}


def _timeout(limits: Limits) -> Any:
    """In aiohttp's words; how long all of a request may take, is seen to elsewhere."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.silence)
