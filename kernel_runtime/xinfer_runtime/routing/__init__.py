"""How a request reaches a replica: the link's frames, the link, and the router that survives lost replicas."""
