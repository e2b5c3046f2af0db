"""Settings: which there are, where their values come from, and what is wrong with them."""

from embedmigrate.config.layers import Loaded, load, load_jobs
from embedmigrate.config.settings import Option, Settings, options

__all__ = ["Loaded", "Option", "Settings", "load", "load_jobs", "options"]
