"""Clients that score images with a SavedModel on this machine or through TensorFlow Serving."""

from urllib.parse import urlsplit

from components.serving.clients.base import Client
from models.errors import UserError


def local(model: str, pictures: bool = False) -> Client:
    """Creates a client that runs a pushed model in this process.

    Args:
        model: a run's output folder, its `serving` folder, or the folder of one version.
        pictures: whether outputs with a value for each pixel or patch are wanted, too.

    Raises:
        UserError: if there is no model, or if it is not one of ours.
    """
    # All clients are imported only when they are needed, because TensorFlow takes seconds to load.
    from components.serving.runner import SavedModelClient, newest_version

    return SavedModelClient(newest_version(model), pictures)


def remote(url: str, model_name: str, timeout: float, pictures: bool = False) -> Client:
    """Creates a client of a running TensorFlow Serving.

    Args:
        url: `http://HOST:PORT` (or https) for REST, or `grpc://HOST:PORT` for gRPC.
        model_name: name under which the model is served.
        timeout: largest duration of one request, in seconds.
        pictures: as for `local`.

    Raises:
        UserError: if the URL does not have one of these forms.
    """
    wrong = UserError(
        f"The address of a server must be http://HOST:PORT or grpc://HOST:PORT, not '{url}'.", "url"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if not parts.hostname:
        raise wrong
    if parts.scheme in ("http", "https"):
        from components.serving.clients.rest import RestClient

        return RestClient(url, model_name, timeout, pictures)
    if parts.scheme == "grpc" and port:
        from components.serving.clients.grpc import GrpcClient

        return GrpcClient(url, model_name, timeout, pictures)
    raise wrong
