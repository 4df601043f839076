"""Functions in, functions out: `grad`, `jacobian`, `hessian` and their relatives, and the check by differences."""
