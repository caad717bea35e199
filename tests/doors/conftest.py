"""What holds for every test of the doors."""

from tests.web.builders import clean_log

__all__ = ["clean_log"]
