"""What holds for every test of the web layer."""

from tests.web.builders import clean_log

__all__ = ["clean_log"]
