"""Inference engines: `base` is the interface, one package per engine implements it."""
