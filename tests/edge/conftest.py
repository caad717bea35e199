"""What holds for every test of the edge."""

from tests.web.builders import clean_log

__all__ = ["clean_log"]
