"""Everything of jupyter-xinfer that runs outside the Jupyter server: in notebook kernels and on Dask nodes."""
