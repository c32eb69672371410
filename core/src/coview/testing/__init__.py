"""For the tests of plugins, anyone's."""

from coview.testing.recipes import has, resolved
from coview.testing.states import same

__all__ = ["has", "resolved", "same"]
