"""Looking inside: a drawing of a graph, what it is made of, where an inf or a NaN came from.

    summary, drawing, pictures    what a graph is made of; as text for Graphviz; as SVG
    anomaly, lines          where an inf or a NaN came from, and the line that recorded it
    instructions            how all of these read the graph

Everything here looks at the graph behind one Tensor (or TensorArray) and leaves it as it is.  A layer, a loss, a sum or
any other operation of arrays counts as one operation, and is looked at whole: what uses one of its outputs uses it all.

>>> import fastscalar as fs
>>> a, b = fs.Tensor(2.0), fs.Tensor(3.0)
>>> print(fs.debug.summary(a * b + 1.0))
5 nodes, 2 operations, depth 2, 185 bytes
  leaves     2
  constants  1
  *          1
  +          1
"""

from fastscalar._core import tape_info
from fastscalar.debug.anomaly import Nonfinite, detect_anomaly, find_nonfinite
from fastscalar.debug.drawing import draw, to_dot
from fastscalar.debug.summary import Summary, summary

__all__ = ["Nonfinite", "Summary", "detect_anomaly", "draw", "find_nonfinite", "summary", "tape_info", "to_dot"]
