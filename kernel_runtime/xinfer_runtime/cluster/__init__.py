"""Where models run: the controller on the Dask scheduler, the node agents on the workers, and the replica processes."""
