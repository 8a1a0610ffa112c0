"""PEP 517 build backend: setuptools, with the JupyterLab extension built first.

The extension's own build requirements (jupyter-builder, and Node.js as a wheel where there is none) are asked for only
when its assets are stale: an sdist carries fresh ones, so installing from it needs no Node.js.
"""

import shutil
from typing import Any

import labextension_assets
from setuptools import Distribution, build_meta
from setuptools.build_meta import prepare_metadata_for_build_editable, prepare_metadata_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *labextension_assets.requirements()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *labextension_assets.requirements()]


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_sdist(config_settings), *labextension_assets.requirements()]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _build_assets()
    # setuptools packs whatever an earlier build left here, modules that no longer exist included.
    shutil.rmtree("build/lib", ignore_errors=True)
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    _build_assets()
    return str(build_meta.build_sdist(sdist_directory, config_settings))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _build_assets()
    # setuptools installs the data files of an editable install only if the distribution has a method `has_data`, but
    # the method is called `has_data_files`. Without this line the panel and the server's configuration are left out.
    Distribution.has_data = Distribution.has_data_files
    return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


def _build_assets() -> None:
    try:
        labextension_assets.ensure_built()
    except labextension_assets.AssetError as error:
        raise SystemExit(f"error: {error}") from None
