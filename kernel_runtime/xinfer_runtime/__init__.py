"""Everything of jupyter-xinfer that runs outside the Jupyter server: in notebook kernels and on Dask nodes."""

from xinfer_runtime._version import __version__

__all__ = ["__version__"]
