"""A finished run, or all folds of an experiment, as one HTML file to share.

The file loads nothing from anywhere, runs no script, and follows the reader's light or dark theme.
"""

from vervet.evaluation.html.page import write_html

__all__ = ["write_html"]
