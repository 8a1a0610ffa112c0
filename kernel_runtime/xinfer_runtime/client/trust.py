"""Which certificates of a server are trusted."""

import ssl

from xinfer_runtime.client.endpoint import Endpoint


def trust(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """The `verify` of an httpx client for the server.

    A server of this machine leaves its own certificate in its runtime file. That certificate alone is trusted then,
    whoever signed it and whatever name is in it: one of your own for `lab.example.org` serves 127.0.0.1 as well.

    Raises OSError for a CA bundle that cannot be read.
    """
    if isinstance(endpoint.verify, str):
        return ssl.create_default_context(cafile=endpoint.verify)
    if not endpoint.verify or not endpoint.certificate:
        return endpoint.verify
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=endpoint.certificate)
    except ssl.SSLError:
        return True
    return context
