"""The tape's neighbours: arrays of Tensors, looks inside, the formulas and the kernels of `fastscalar._core`.

The engine knows nothing of programs, transforms and nets.
"""
