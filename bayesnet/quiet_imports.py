"""Libraries that warn at their import are imported here first, so that a user meets no warning that asks for nothing.

tqdm warns in notebooks without ipywidgets (NumPyro imports that part of it), ArviZ 0.23 announces its successor.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"IProgress not found")
    warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major refactor", category=FutureWarning)
    import arviz  # noqa: F401
    import tqdm.auto  # noqa: F401
