from tests.client.recorded_server import model, recorded, sse
from tests.client.slow_server import slow

__all__ = ["model", "recorded", "slow", "sse"]
