"""Errors that begin on the client's side. What the server answers comes back as the server's own classes.

ClientError                     no answer, or none that can be understood
├── ServerNotFound              nothing tells which Jupyter server to use
├── ConnectionFailed            the server cannot be reached, or the connection broke
├── UnexpectedAnswer            something answered that is not jupyter-xinfer
└── LaunchFailed                a launch that the server had accepted did not become ready
"""

from xinfer_runtime.errors import XinferError


class ClientError(XinferError):
    code = "client_error"


class ServerNotFound(ClientError):
    code = "server_not_found"


class ConnectionFailed(ClientError):
    code = "connection_failed"


class UnexpectedAnswer(ClientError):
    code = "unexpected_answer"


class LaunchFailed(ClientError):
    code = "launch_failed"
