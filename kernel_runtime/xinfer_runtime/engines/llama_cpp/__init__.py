"""The llama.cpp engine: GGUF models through llama-cpp-python's low-level batch API.

Importing this package loads nothing: `sizing` is plain arithmetic that the catalog uses too, everything else is
imported by `xinfer_runtime.engines.registry.create_engine`.
"""
