"""The version, as the installed package's metadata has it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastscalar")
except PackageNotFoundError:  # run from a source folder that was never installed
    __version__ = "0+unknown"
