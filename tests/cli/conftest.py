from tests.client.recorded_server import model, recorded, sse

__all__ = ["model", "recorded", "sse"]
