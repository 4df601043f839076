"""The package's own folder: code that looks for the user's line steps over frames whose file lies in it."""

import os

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
